from __future__ import annotations

from contextlib import suppress
from random import Random
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_hsm.uri import BadUri, parse_uri

MODULE = "module-path=/usr/lib/softhsm/libsofthsm2.so"


def test_a_token_is_named_by_its_attributes() -> None:
    uri = parse_uri(f"pkcs11:token=my%20token;serial=00ff?{MODULE}")
    assert uri.scheme == "pkcs11"
    assert uri.path == {"token": "my token", "serial": "00ff"}
    assert uri.module == "/usr/lib/softhsm/libsofthsm2.so"


def test_the_module_may_stand_among_the_path_attributes() -> None:
    assert parse_uri(f"pkcs11:token=x;{MODULE}").module == "/usr/lib/softhsm/libsofthsm2.so"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begins with"),
        ("token=x", "begins with"),
        ("tpm2:x", "no HSM back end"),
        ("pkcs11:token=x", "names no module"),
        ("pkcs11:token=x?module-path=lib.so", "absolute"),
        ("pkcs11:token=x?module-name=no-such-module", "whole path"),
        ("pkcs11:token=x?module-name=../softhsm2", "no folder"),
        (f"pkcs11:token=x?module-name=softhsm2&{MODULE}", "one is enough"),
        (f"pkcs11:token=x;token=y?{MODULE}", "twice"),
        (f"pkcs11:token=x;{MODULE}?{MODULE}", "twice"),
        (f"pkcs11:colour=red?{MODULE}", "does not know"),
        (f"pkcs11:token?{MODULE}", "no '='"),
        (f"pkcs11:token=%zz?{MODULE}", "hexadecimal"),
        (f"pkcs11:token=%ff?{MODULE}", "UTF-8"),
        (f"pkcs11:token=%00?{MODULE}", "NUL"),
        (f"pkcs11:slot-id=one?{MODULE}", "number"),
        (f"pkcs11:token=a b?{MODULE}", "percent-encoded"),
        (f"pkcs11:token=x?{MODULE}&pin-value=1234", "--pin-file"),
        (f"pkcs11:token=x?{MODULE}?pin-value=1234", "--pin-file"),
        (f"pkcs11:token=x?{MODULE},PIN-VALUE=1234", "--pin-file"),
        (f"pkcs11:token=x?{MODULE}&pin-source=file:/pin", "--pin-file"),
        ("pkcs11:" + "x" * 5000, "longer"),
        ("software:colour=red", "does not know"),
    ],
)
def test_a_uri_with_a_mistake_is_refused_with_its_reason(text: str, says: str) -> None:
    with pytest.raises(BadUri, match=says):
        parse_uri(text)


@given(st.text())
def test_any_text_parses_or_is_refused(text: str) -> None:
    with suppress(BadUri):
        parse_uri(text)


TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=60)


def test_a_module_may_be_named_without_its_path() -> None:
    by_name = parse_uri("pkcs11:token=x?module-name=softhsm2")
    assert by_name.module.endswith("/libsofthsm2.so")
    assert parse_uri("pkcs11:token=x?module-name=libsofthsm2.so").module == by_name.module


def test_what_a_library_wants_at_its_start_is_decoded() -> None:
    uri = parse_uri(f"pkcs11:token=x?{MODULE}&x-initialise=configdir%3D%27sql%3A/nss%27%20flags%3D")
    assert uri.initialise == "configdir='sql:/nss' flags="


ATTRIBUTES = (
    *("token", "serial", "manufacturer", "model", "library-manufacturer", "library-description", "library-version"),
    *("slot-description", "slot-manufacturer"),
)


@given(st.dictionaries(st.sampled_from(ATTRIBUTES), TEXTS))
def test_every_attribute_survives_percent_encoding(attributes: dict[str, str]) -> None:
    path = ";".join(f"{name}={quote(value, safe='')}" for name, value in attributes.items())
    assert parse_uri(f"pkcs11:{path}?{MODULE}").path == attributes


@given(TEXTS, st.randoms(use_true_random=False))
def test_whatever_is_encoded_more_than_it_must_be_is_the_same(label: str, random: Random) -> None:
    """RFC 3986, section 2.3: an encoded unreserved character is the character; hexadecimal digits in either case."""
    encoded = "".join(_as(byte, random.randrange(3)) for byte in label.encode())
    assert parse_uri(f"pkcs11:token={encoded}?{MODULE}").path == {"token": label}


def _as(byte: int, manner: int) -> str:
    if manner == 0 and chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in "-._~"):
        return chr(byte)
    return f"%{byte:02X}" if manner == 1 else f"%{byte:02x}"


@given(label=TEXTS, serial=TEXTS)
def test_what_is_quoted_comes_back(label: str, serial: str) -> None:
    uri = parse_uri(f"pkcs11:token={quote(label, safe='')};serial={quote(serial, safe='')}?{MODULE}")
    assert uri.path == {"token": label, "serial": serial}


def test_a_yubihsm_is_named_by_its_connector() -> None:
    assert parse_uri("yubihsm:http://127.0.0.1:12345").path == {
        "host": "127.0.0.1",
        "port": "12345",
        "auth-key": "1",
        "authentication": "symmetric",
        "domain": "1",
    }
    path = parse_uri("yubihsm:http://hsm.internal/?auth-key=7&authentication=asymmetric&domain=16").path
    assert (path["host"], path["port"], path["auth-key"], path["domain"]) == ("hsm.internal", "12345", "7", "16")
    assert path["authentication"] == "asymmetric"
    assert parse_uri(f"yubihsm:http://[::1]:9?device-key={'0f' * 32}").path["host"] == "::1"


def test_a_yubihsm_is_named_by_its_serial() -> None:
    assert parse_uri("yubihsm:usb:serial=12345?auth-key=2").path["serial"] == "0000012345"
    assert "serial" not in parse_uri("yubihsm:usb").path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("yubihsm:", "write yubihsm:http"),
        ("yubihsm:https://x", "write yubihsm:http"),
        ("yubihsm:http://x:0", "port is a number"),
        ("yubihsm:http://x:70000", "port is a number"),
        ("yubihsm:http://x y", "percent-encoded"),
        ("yubihsm:http://user@x", "write yubihsm:http"),
        ("yubihsm:http://x?auth-key=0", "auth-key is a number"),
        ("yubihsm:http://x?auth-key=65535", "auth-key is a number"),
        ("yubihsm:http://x?domain=17", "domain is a number"),
        ("yubihsm:http://x?authentication=none", "symmetric"),
        ("yubihsm:http://x?device-key=00", "64 lower-case"),
        ("yubihsm:http://x?pin-value=secret", "a PIN does not belong"),
        ("yubihsm:http://x?auth-key=1&auth-key=2", "twice"),
        ("yubihsm:usb:serial=x", "serial is a number"),
        ("yubihsm:usb:colour=red", "does not know"),
    ],
)
def test_a_bad_yubihsm_uri_says_what_to_write(text: str, says: str) -> None:
    with pytest.raises(BadUri, match=says) as refused:
        parse_uri(text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("text", ["pin-source=1234:x", "token=x;pin-value=1234:x", "1234:", " pkcs11:token=x", "é:x"])
def test_what_is_no_scheme_is_not_repeated(text: str) -> None:
    with pytest.raises(BadUri, match="begins with pkcs11: or yubihsm:") as caught:
        parse_uri(text)
    assert "1234" not in str(caught.value)
