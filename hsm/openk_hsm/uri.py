"""HSM URIs: which back end, and which token. PINs are refused here: a URI is in argv, configuration and logs.

pkcs11:token=openk;serial=fcb99c39?module-path=/usr/lib/softhsm/libsofthsm2.so     RFC 7512
software:state=/var/tmp/keys                                                       tests and --dev only
yubihsm:http://127.0.0.1:12345        yubihsm:usb:serial=123456                    (their own room)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
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
_MATCHED: Final = frozenset({"token", "serial", "manufacturer", "model", "slot-id"})
_QUERY_NAMES: Final = frozenset({"module-path", "module-name"})
_PIN_NAMES: Final = frozenset({"pin-source", "pin-value"})
_SOFTWARE_NAMES: Final = frozenset({"state", "hang", "pin"})
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CHARACTERS: Final = re.compile(r"[!-~]*\Z")  # no space, no controls, ASCII: RFC 3986


class BadUri(HsmError):
    """An HSM URI that cannot be used. The text says why and what to write instead."""

    code = "daemon.misconfigured"


@dataclass(frozen=True, slots=True)
class HsmUri:
    """`scheme`: "pkcs11", "software" or "yubihsm". `path`: attributes, decoded. `module`: the PKCS#11 library's path.
    `rest`: what follows the scheme, undecoded, for back ends with their own form."""

    scheme: str
    path: dict[str, str] = field(default_factory=dict[str, str])
    module: str = ""
    rest: str = ""


def parse_uri(text: str) -> HsmUri:
    """Parse an HSM URI. Raises BadUri; the text never repeats a PIN."""
    if len(text) > MAX_URI:
        raise BadUri(f"an HSM URI is longer than {MAX_URI} characters")
    scheme, colon, rest = text.partition(":")
    if not colon:
        raise BadUri("an HSM URI begins with pkcs11: or yubihsm:")
    if not _CHARACTERS.match(rest):
        raise BadUri("an HSM URI has a character that must be percent-encoded")
    match scheme.lower():
        case "pkcs11":
            return _parse_pkcs11(rest)
        case "software":
            return HsmUri("software", _pairs(rest, ";", _SOFTWARE_NAMES), rest=rest)
        case "yubihsm":
            return HsmUri("yubihsm", rest=rest)
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
    unmatched = set(path) - _MATCHED
    if unmatched:
        raise BadUri(f"openk does not match tokens by {min(unmatched)}: use token, serial, model or manufacturer")
    if "slot-id" in path and not (path["slot-id"].isascii() and path["slot-id"].isdigit()):
        raise BadUri("slot-id is a number")
    module = query.get("module-path", "")
    if "module-name" in query:
        raise BadUri("give the module's whole path: module-path=/usr/lib/...")
    if not module:
        raise BadUri("the URI names no module: add ?module-path=/usr/lib/softhsm/libsofthsm2.so or your vendor's")
    if not module.startswith("/"):
        raise BadUri("module-path is an absolute path")
    return HsmUri("pkcs11", path, module, rest)


def _pairs(text: str, separator: str, allowed: frozenset[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in text.split(separator) if text else ():
        name, equals, value = item.partition("=")
        if name in _PIN_NAMES:
            raise BadUri("a PIN does not belong into a URI: use --pin-credential, --pin-file or --pin-fd")
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
