"""HSM URIs: which back end, and which token. PINs are refused here: a URI is in argv, configuration and logs.

pkcs11:token=openk;serial=fcb99c39?module-path=/usr/lib/softhsm/libsofthsm2.so     RFC 7512
pkcs11:token=openk?module-name=softhsm2                                            the same, looked for
software:state=/var/tmp/keys                                                       tests and --dev only
yubihsm:http://127.0.0.1:12345?auth-key=2                                          a yubihsm-connector
yubihsm:usb:serial=0012345678?auth-key=2&authentication=asymmetric&domain=3        a device that is plugged in
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from openk_hsm.errors import HsmError

MAX_URI: Final = 4096
_PATH_NAMES: Final = frozenset(
    {
        "token",
        "serial",
        "manufacturer",
        "model",
        "slot-id",
        "library-manufacturer",
        "library-description",
        "library-version",
        "slot-description",
        "slot-manufacturer",
    }
)
_QUERY_NAMES: Final = frozenset({"module-path", "module-name", "x-initialise"})
_MODULE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\Z")
MODULE_FOLDERS: Final = (
    *("/usr/lib/x86_64-linux-gnu/pkcs11", "/usr/lib/aarch64-linux-gnu/pkcs11", "/usr/lib64/pkcs11", "/usr/lib/pkcs11"),
    *("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/lib/softhsm"),
    *("/usr/local/lib/pkcs11", "/usr/local/lib"),
)
"""Where module-name looks, in order: folders that only root writes to."""
_YUBIHSM_NAMES: Final = frozenset({"auth-key", "authentication", "domain", "device-key"})
_PIN: Final = re.compile(r"pin-(value|source)=", re.IGNORECASE)
_SOFTWARE_NAMES: Final = frozenset({"state", "hang", "pin"})
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONNECTOR: Final = re.compile(r"http://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]+))?/?\Z")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}\Z")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")  # what is none is not repeated: it may hold a PIN
_CHARACTERS: Final = re.compile(r"[!-~]*\Z")  # no space, no controls, ASCII: RFC 3986


class BadUri(HsmError):
    """An HSM URI that cannot be used. The text says why and what to write instead."""

    code = "daemon.misconfigured"


@dataclass(frozen=True, slots=True)
class HsmUri:
    """`scheme`: "pkcs11", "software" or "yubihsm". `path`: attributes, decoded. `module`: the PKCS#11 library's path.
    `rest`: what follows the scheme, undecoded, for back ends with their own form. `initialise`: the string that the
    library gets at C_Initialize, for NSS softokn (PKCS#11 reserves it).

    yubihsm: `path` has "host" and "port", or "usb" (and "serial", 10 digits, where one was named); then "auth-key"
    (1 to 65534, 1 if left out), "authentication" ("symmetric" or "asymmetric"), "domain" (1 to 16), and "device-key"
    (SHA-256 of the device's public key, hexadecimal) where one was given."""

    scheme: str
    path: dict[str, str] = field(default_factory=dict[str, str])
    module: str = ""
    rest: str = ""
    initialise: str = ""


def parse_uri(text: str) -> HsmUri:
    """Parse an HSM URI. Raises BadUri; the text never repeats a PIN."""
    if len(text) > MAX_URI:
        raise BadUri(f"an HSM URI is longer than {MAX_URI} characters")
    scheme, colon, rest = text.partition(":")
    if not colon or not _SCHEME.match(scheme):
        raise BadUri("an HSM URI begins with pkcs11: or yubihsm:")
    if _PIN.search(text):  # wherever: behind a wrong separator it would be taken for a part of a path, and be logged
        raise BadUri("a PIN does not belong into a URI: use --pin-credential, --pin-file or --pin-fd")
    if not _CHARACTERS.match(rest):
        raise BadUri("an HSM URI has a character that must be percent-encoded")
    match scheme.lower():
        case "pkcs11":
            return _parse_pkcs11(rest)
        case "software":
            return HsmUri("software", _pairs(rest, ";", _SOFTWARE_NAMES), rest=rest)
        case "yubihsm":
            return _parse_yubihsm(rest)
        case _:
            raise BadUri(f"no HSM back end is named {scheme[:32]!r}: write pkcs11: or yubihsm:")


def _parse_pkcs11(rest: str) -> HsmUri:
    path_text, _, query_text = rest.partition("?")
    path = _pairs(path_text, ";", _PATH_NAMES | _QUERY_NAMES)  # many write module-path among the path attributes
    query = _pairs(query_text, "&", _QUERY_NAMES)
    for name in _QUERY_NAMES & set(path):
        if name in query:
            raise BadUri(f"the URI has {name} twice")
        query[name] = path.pop(name)
    if "slot-id" in path and not (path["slot-id"].isascii() and path["slot-id"].isdigit()):
        raise BadUri("slot-id is a number")
    return HsmUri("pkcs11", path, _module(query), rest, query.get("x-initialise", ""))


def _module(query: dict[str, str]) -> str:
    path, name = query.get("module-path", ""), query.get("module-name", "")
    if path and name:
        raise BadUri("the URI has module-path and module-name: one is enough")
    if name:
        return find_module(name)
    if not path:
        raise BadUri("the URI names no module: add ?module-path=/usr/lib/softhsm/libsofthsm2.so or your vendor's")
    if not path.startswith("/"):
        raise BadUri("module-path is an absolute path")
    return path


def find_module(name: str) -> str:
    """The path of the library that RFC 7512's module-name means: no folder, no "lib", no suffix. Raises BadUri."""
    if not _MODULE_NAME.match(name):
        raise BadUri("module-name is a name such as softhsm2: no folder in it. For a path use module-path")
    stems = dict.fromkeys((name, name.removesuffix(".so")))
    for folder in MODULE_FOLDERS:
        for stem in stems:
            for file in (f"lib{stem}.so", f"{stem}.so"):
                if (path := Path(folder, file)).is_file():
                    return str(path)
    raise BadUri(
        f"no module named {name!r} is in the folders where openk looks (/usr/lib, its pkcs11 and softhsm folders, "
        "/usr/local/lib): give its whole path, module-path=/..."
    )


def _parse_yubihsm(rest: str) -> HsmUri:
    place, _, query_text = rest.partition("?")
    path = {"auth-key": "1", "authentication": "symmetric", "domain": "1", **_pairs(query_text, "&", _YUBIHSM_NAMES)}
    _check_number(path, "auth-key", 1, 0xFFFE)
    _check_number(path, "domain", 1, 16)
    if path["authentication"] not in {"symmetric", "asymmetric"}:
        raise BadUri("authentication is symmetric (a password) or asymmetric (a P-256 key from a password)")
    if "device-key" in path and not _FINGERPRINT.match(path["device-key"]):
        raise BadUri("device-key is the SHA-256 of the device's public key: 64 lower-case hexadecimal digits")
    if place == "usb" or place.startswith("usb:"):
        path.update(_pairs(place[4:], ";", frozenset({"serial"})), usb="yes")
        if "serial" in path:
            _check_number(path, "serial", 1, 0xFFFF_FFFF)
            path["serial"] = path["serial"].zfill(10)
        return HsmUri("yubihsm", path, rest=rest)
    found = _CONNECTOR.match(place)
    if found is None:
        raise BadUri("write yubihsm:http://HOST:PORT (a yubihsm-connector) or yubihsm:usb:serial=NUMBER")
    path["host"] = found["host"].strip("[]")
    path["port"] = found["port"] or "12345"
    _check_number(path, "port", 1, 0xFFFF)
    return HsmUri("yubihsm", path, rest=rest)


def _check_number(path: dict[str, str], name: str, least: int, most: int) -> None:
    text = path[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most):
        raise BadUri(f"{name} is a number from {least} to {most}")


def _pairs(text: str, separator: str, allowed: frozenset[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in text.split(separator) if text else ():
        name, equals, value = item.partition("=")
        if not equals:
            raise BadUri("an attribute of the URI has no '='")
        if name not in allowed:
            raise BadUri(f"the URI has an attribute {name[:64]!r} that openk does not know")
        if name in pairs:
            raise BadUri(f"the URI has {name} twice")
        pairs[name] = _decode(name, value)
    return pairs


def _decode(name: str, value: str) -> str:
    if _PERCENT.search(value):
        raise BadUri(f"the URI's {name} has a '%' without two hexadecimal digits")
    try:
        decoded = unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise BadUri(f"the URI's {name} is not UTF-8") from None
    if "\x00" in decoded:
        raise BadUri(f"the URI's {name} has a NUL")
    return decoded
