"""Parts of the PKCS#11 back end that need no token: public keys, return values, templates."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from openk_hsm.errors import (
    HsmError,
    InvalidCiphertext,
    SessionLost,
    TokenFull,
    TokenMissing,
    Unavailable,
    WrongPin,
)
from openk_hsm.pkcs11 import codes, public
from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.discovery import TokenFound, choose_token
from openk_hsm.pkcs11.module import Template
from openk_hsm.pkcs11.quirks import Quirks
from openk_hsm.pkcs11.templates import expected, generated, kind_of, tightened, unwrapped
from openk_hsm.seam import Algorithm
from openk_hsm.specs import MECHANISMS
from openk_hsm.uri import parse_uri

CURVES: list[tuple[Algorithm, ec.EllipticCurve]] = [
    (Algorithm.P256, ec.SECP256R1()),
    (Algorithm.P384, ec.SECP384R1()),
    (Algorithm.P521, ec.SECP521R1()),
]


@pytest.mark.parametrize(("algorithm", "curve"), CURVES)
def test_points_become_public_keys(algorithm: Algorithm, curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve).public_key()
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    length = bytes([len(point)]) if len(point) < 128 else bytes([0x81, len(point)])
    assert public.curve_spki(algorithm, b"\x04" + length + point) == der
    assert public.curve_spki(algorithm, point) == der  # some tokens do not wrap it


def test_edwards_and_montgomery_points_become_public_keys() -> None:
    for algorithm, key in (
        (Algorithm.ED25519, ed25519.Ed25519PrivateKey.generate().public_key()),
        (Algorithm.X25519, x25519.X25519PrivateKey.generate().public_key()),
    ):
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert public.curve_spki(algorithm, b"\x04\x20" + key.public_bytes_raw()) == der


def test_rsa_numbers_become_public_keys() -> None:
    key = rsa.generate_private_key(65537, 2048).public_key()
    modulus = key.public_numbers().n.to_bytes(256, "big")
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public.rsa_spki(modulus, b"\x01\x00\x01") == der
    assert public.rsa_spki(b"\x00" + modulus, b"\x00\x01\x00\x01") == der


@given(st.binary(max_size=140), st.sampled_from(sorted(public.EC_PARAMS)))
def test_points_of_another_form_are_refused(point: bytes, algorithm: Algorithm) -> None:
    try:
        der = public.curve_spki(algorithm, point)
    except HsmError:
        return
    assert der.endswith(point[-32:])


def test_the_page_tells_what_each_code_leads_to() -> None:
    page = (Path(__file__).parents[3] / "docs" / "hsm.md").read_text()
    table = page.split("<!-- codes: begin -->")[1].split("<!-- codes: end -->")[0]
    told = [set(re.findall(r"CKR_[A-Z_]+", row)) for row in table.splitlines() if "CKR_" in row]
    named = {codes.name_of(number): type(codes.error_of(number, "x")) for number in range(0x201)}
    named = {name: kind for name, kind in named.items() if not name.startswith("CKR_0x")}

    def those_of(*kinds: type[HsmError]) -> set[str]:
        return {name for name, kind in named.items() if kind in kinds}

    doubtful = {name for name in named if codes.is_doubtful(name)}
    assert told == [those_of(SessionLost), those_of(Unavailable, TokenMissing), doubtful, those_of(WrongPin)]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0x030, Unavailable),
        (0x032, Unavailable),
        (0x190, Unavailable),
        (0x0B1, Unavailable),
        (0x0B0, SessionLost),
        (0x0B3, SessionLost),
        (0x101, SessionLost),
        (0x060, SessionLost),
        (0x082, SessionLost),
        (0x0E0, TokenMissing),
        (0x0E1, TokenMissing),
        (0x031, TokenFull),
        (0x040, InvalidCiphertext),
        (0x0A0, WrongPin),
        (0x0A4, WrongPin),
        (0x005, HsmError),
        (0x80000001, HsmError),
    ],
)
def test_return_values_say_whose_fault_it_is(code: int, kind: type[HsmError]) -> None:
    error = codes.error_of(code, "C_X")
    assert type(error) is kind
    assert error.device == codes.name_of(code)
    with pytest.raises(kind):
        codes.check(code, "C_X")


def test_success_is_no_error() -> None:
    codes.check(0, "C_X")


def test_every_template_says_everything_that_protects() -> None:
    deciding = {ck.CKA_SENSITIVE, ck.CKA_EXTRACTABLE, ck.CKA_MODIFIABLE, ck.CKA_COPYABLE, ck.CKA_PRIVATE, ck.CKA_TOKEN}
    for spec in MECHANISMS:
        secret = kind_of(spec.algorithm).object_class == ck.CKO_SECRET_KEY
        uses = {ck.CKA_DECRYPT, ck.CKA_SIGN, ck.CKA_UNWRAP, ck.CKA_DERIVE}
        uses |= {ck.CKA_ENCRYPT, ck.CKA_VERIFY, ck.CKA_WRAP} if secret else {ck.CKA_SIGN_RECOVER}
        for template in (generated(spec, [], token=True, extractable=False), unwrapped(spec)):
            kinds = [template.array[index].type for index in range(template.count)]
            assert deciding | uses <= set(kinds)
            assert len(kinds) == len(set(kinds))
        kinds = [unwrapped(spec).array[index].type for index in range(unwrapped(spec).count)]
        assert kinds[-1] == ck.CKA_MODIFIABLE  # SoftHSM2 refuses whatever follows it
        assert deciding | uses <= {kind for kind, _ in expected(spec, token=False)}


def found(label: str, serial: str, *, ready: bool = True) -> TokenFound:
    return TokenFound(1, label, serial, "SoftHSM v2", "x", "2.6", ready, ready, "")


def test_one_token_is_chosen_or_it_is_said_why_not() -> None:
    one, two = found("a", "1"), found("a", "2")
    uri = parse_uri("pkcs11:token=a;serial=2?module-path=/m.so")
    assert choose_token([one, two], uri) is two
    loose = parse_uri("pkcs11:token=a?module-path=/m.so")
    with pytest.raises(HsmError, match="add serial=") as refused:
        choose_token([one, two], loose)
    assert "'a' serial=1 slot-id=1; 'a' serial=2 slot-id=1" in str(refused.value)
    with pytest.raises(HsmError, match="not initialised"):
        choose_token([found("a", "1", ready=False)], loose)
    with pytest.raises(HsmError, match="no token matches"):
        choose_token([found("b", "1")], loose)


def test_what_a_token_cannot_express_is_neither_set_nor_asserted() -> None:
    quirks = Quirks(inexpressible=frozenset({ck.CKA_COPYABLE}), unwraps_loosely=True)
    for spec in MECHANISMS:
        asserted = {kind for kind, _ in expected(spec, token=False, quirks=quirks)}
        assert ck.CKA_COPYABLE not in asserted
        assert ck.CKA_MODIFIABLE in asserted
        for template in (
            generated(spec, [], token=True, extractable=False, quirks=quirks),
            unwrapped(spec, quirks),
            tightened(spec, quirks),
        ):
            assert ck.CKA_COPYABLE not in [template.array[index].type for index in range(template.count)]


def test_a_key_that_is_unwrapped_loosely_is_modifiable_until_it_was_copied() -> None:
    quirks = Quirks(unwraps_loosely=True)
    for spec in MECHANISMS:
        assert modifiable(unwrapped(spec, quirks))
        assert not modifiable(tightened(spec, quirks))
        assert not modifiable(unwrapped(spec))


def modifiable(template: Template) -> bool:
    rows = {template.array[index].type: template.array[index].value for index in range(template.count)}
    return ctypes.string_at(rows[ck.CKA_MODIFIABLE], 1) == b"\x01"


@given(st.dictionaries(st.sampled_from(["token", "serial", "model", "slot-id"]), st.sampled_from(["1", "2", "3"])))
def test_the_chosen_token_fits_the_uri_and_no_other_does(wanted: dict[str, str]) -> None:
    tokens = [
        TokenFound(slot, label, serial, model, "x", "1", True, True, "")
        for slot, label, serial, model in ((1, "1", "1", "1"), (2, "1", "2", "1"), (3, "2", "3", "1"))
    ]
    have = [{"token": t.label, "serial": t.serial, "model": t.model, "slot-id": str(t.slot)} for t in tokens]
    fitting = [t for t, h in zip(tokens, have, strict=True) if wanted.items() <= h.items()]
    path = ";".join(f"{name}={value}" for name, value in wanted.items())
    uri = parse_uri(f"pkcs11:{path}?module-path=/m.so")
    if len(fitting) == 1:
        assert choose_token(tokens, uri) is fitting[0]
    else:
        with pytest.raises(TokenMissing) as refused:
            choose_token(tokens, uri)
        assert all(f"serial={token.serial}" in str(refused.value) for token in fitting)
