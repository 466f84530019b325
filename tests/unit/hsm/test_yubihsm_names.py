"""Names of objects on a YubiHSM, kinds of keys, error codes: tables that must hold together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yubihsm.defs import ALGORITHM, CAPABILITY, ERROR

from openk_hsm.errors import HsmError, InvalidInput
from openk_hsm.roots import ROOT_KW, ROOT_MAC, roots
from openk_hsm.seam import Algorithm, Resident
from openk_hsm.yubihsm import codes, names
from openk_hsm.yubihsm.kinds import DELEGATED_NEEDS, KINDS, NAMES, SESSION_NEEDS, capability_names, mechanisms_of

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(TEXT, st.binary(max_size=20), st.integers(1, 0xFFFE))
def test_a_name_comes_back_or_is_refused(label: str, id_: bytes, number: int) -> None:
    try:
        packed = names.pack(label, id_)
    except InvalidInput:
        return
    assert len(packed) <= 40
    assert names.unpack(packed.ljust(40, b"\0"), number) == (label, id_)


@given(TEXT, st.binary(min_size=1, max_size=20), TEXT, st.binary(max_size=20))
def test_two_names_are_never_one_label(one: str, first: bytes, two: str, second: bytes) -> None:
    packed: set[bytes] = set()
    pairs = {(one, first), (two, second), (one + first.hex(), first)}
    for label, id_ in pairs:
        try:
            packed.add(names.pack(label, id_))
        except InvalidInput:
            return
    assert len(packed) == len(pairs)


@given(st.binary(max_size=40), st.integers(1, 0xFFFE))
def test_any_label_of_somebody_elses_reads(packed: bytes, number: int) -> None:
    label, id_ = names.unpack(packed, number)
    assert isinstance(label, str)
    assert isinstance(id_, bytes)


def test_the_names_that_openk_uses_fit() -> None:
    for root in roots(Algorithm.AES_256_CCM, Algorithm.ED25519):
        assert isinstance(root.source, Resident)
        assert names.pack(root.source.label, root.source.id) == root.source.label.encode()
    id_ = bytes(range(20))
    for stem in ("openk-key-", "openk-data-", "openk-mac-"):
        assert names.pack(stem + id_.hex(), id_).startswith(stem.encode() + b"~")
    assert names.unpack(b"DEFAULT AUTHKEY CHANGE THIS ASAP".ljust(40, b"\0"), 1)[1] == b"\0\1"


def test_no_key_may_leave_the_device_and_each_has_one_job() -> None:
    for spec, kind in KINDS.items():
        assert not kind.capabilities & CAPABILITY.EXPORTABLE_UNDER_WRAP
        assert kind.capabilities & ~DELEGATED_NEEDS == 0
        jobs = {name.split("-")[0] for name in capability_names(kind.capabilities)}
        assert len(jobs - {"unwrap"}) <= 1, spec
        assert bool(mechanisms_of(spec)) is (spec != ROOT_KW.spec)
        assert kind.algorithm in NAMES
    assert KINDS[ROOT_KW.spec].capabilities == 0
    assert KINDS[ROOT_MAC.spec].algorithm is ALGORITHM.HMAC_SHA256
    for dangerous in (
        CAPABILITY.EXPORT_WRAPPED,
        CAPABILITY.IMPORT_WRAPPED,
        CAPABILITY.PUT_WRAP_KEY,
        CAPABILITY.PUT_AUTHENTICATION_KEY,
        CAPABILITY.CHANGE_AUTHENTICATION_KEY,
        CAPABILITY.RESET_DEVICE,
        CAPABILITY.SET_OPTION,
        CAPABILITY.EXPORTABLE_UNDER_WRAP,
    ):
        assert not (SESSION_NEEDS | DELEGATED_NEEDS) & dangerous


@pytest.mark.parametrize("code", [error for error in ERROR if error is not ERROR.OK])
def test_every_code_of_the_device_has_a_name_and_a_sentence(code: ERROR) -> None:
    error = codes.error_of(code, "SIGN_HMAC")
    assert isinstance(error, HsmError)
    assert error.device == f"YUBIHSM_{code.name}"
    assert len(str(error)) > len("SIGN_HMAC: ") + 15
    assert "does not know" not in str(error) or code is ERROR.INVALID_COMMAND


def test_an_unknown_code_is_told_by_number() -> None:
    assert codes.error_of(0x7E, "ECHO").device == "YUBIHSM_0x7e"
