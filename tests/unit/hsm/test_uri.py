from __future__ import annotations

from contextlib import suppress
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
        ("pkcs11:token=x?module-name=softhsm2", "whole path"),
        (f"pkcs11:token=x;token=y?{MODULE}", "twice"),
        (f"pkcs11:token=x;{MODULE}?{MODULE}", "twice"),
        (f"pkcs11:colour=red?{MODULE}", "does not know"),
        (f"pkcs11:token?{MODULE}", "no '='"),
        (f"pkcs11:token=%zz?{MODULE}", "hexadecimal"),
        (f"pkcs11:token=%ff?{MODULE}", "UTF-8"),
        (f"pkcs11:token=%00?{MODULE}", "NUL"),
        (f"pkcs11:slot-id=one?{MODULE}", "number"),
        (f"pkcs11:library-version=3?{MODULE}", "does not match tokens by"),
        (f"pkcs11:token=a b?{MODULE}", "percent-encoded"),
        (f"pkcs11:token=x?{MODULE}&pin-value=1234", "--pin-file"),
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


@given(label=TEXTS, serial=TEXTS)
def test_what_is_quoted_comes_back(label: str, serial: str) -> None:
    uri = parse_uri(f"pkcs11:token={quote(label, safe='')};serial={quote(serial, safe='')}?{MODULE}")
    assert uri.path == {"token": label, "serial": serial}
