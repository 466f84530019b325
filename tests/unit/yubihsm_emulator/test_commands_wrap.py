import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.emulated_device import Bench, header, key_of, u16
from yubihsm_emulator.codes import ALL_CAPABILITIES, Algorithm, Capability, Command, ObjectType
from yubihsm_emulator.errors import ErrorCode
from yubihsm_emulator.material import ccm
from yubihsm_emulator.material.wrapping import WrappedObject

WRAP, OTHER, RSA_WRAP = 0x10, 0x11, 0x12
SECRET = os.urandom(32)
EXPORTABLE = Capability.EXPORTABLE_UNDER_WRAP
KEYPAIRS = [
    Algorithm.RSA_2048,
    Algorithm.EC_P224,
    Algorithm.EC_P256,
    Algorithm.EC_P521,
    Algorithm.EC_BP384,
    Algorithm.EC_ED25519,
]


@pytest.fixture
def bench() -> Bench:
    """Two AES wrap keys and one of RSA, which may all give away everything."""
    made = Bench()
    for object_id, algorithm, material in (
        (WRAP, Algorithm.AES256_CCM_WRAP, SECRET),
        (OTHER, Algorithm.AES192_CCM_WRAP, os.urandom(24)),
        (RSA_WRAP, Algorithm.RSA_2048, key_of(Algorithm.RSA_2048)),
    ):
        made.keep(ObjectType.WRAP_KEY, object_id, algorithm, material, delegated=ALL_CAPABILITIES)
    return made


def exported(bench: Bench, kind: ObjectType, object_id: int, tail: bytes = b"") -> bytes:
    return bench.call(Command.EXPORT_WRAPPED, u16(WRAP) + bytes((kind,)) + u16(object_id) + tail)


@given(st.binary(min_size=1, max_size=3000))
def test_wrapped_data_unwraps(data: bytes) -> None:
    bench = Bench()
    bench.keep(ObjectType.WRAP_KEY, WRAP, Algorithm.AES256_CCM_WRAP, SECRET)
    wrapped = bench.call(Command.WRAP_DATA, u16(WRAP) + data)
    assert len(wrapped) == len(data) + 30
    assert ccm.open_blob(SECRET, wrapped) == b"\x00" + data
    assert bench.call(Command.UNWRAP_DATA, u16(WRAP) + wrapped) == data


@given(st.binary(min_size=1, max_size=60), st.data())
def test_wrapped_data_with_a_flipped_bit_or_under_another_key_is_invalid(data: bytes, draw: st.DataObject) -> None:
    bench = Bench()
    bench.keep(ObjectType.WRAP_KEY, WRAP, Algorithm.AES256_CCM_WRAP, SECRET)
    bench.keep(ObjectType.WRAP_KEY, OTHER, Algorithm.AES256_CCM_WRAP, os.urandom(32))
    wrapped = bytearray(bench.call(Command.WRAP_DATA, u16(WRAP) + data))
    bench.fails(ErrorCode.INVALID_DATA, Command.UNWRAP_DATA, u16(OTHER) + bytes(wrapped))
    bit = draw.draw(st.integers(0, 8 * len(wrapped) - 1))
    wrapped[bit // 8] ^= 1 << bit % 8
    bench.fails(ErrorCode.INVALID_DATA, Command.UNWRAP_DATA, u16(WRAP) + bytes(wrapped))


def test_data_and_objects_do_not_open_as_each_other(bench: Bench) -> None:
    bench.keypair(1, Algorithm.EC_P256)
    blob = exported(bench, ObjectType.ASYMMETRIC_KEY, 1)
    bench.fails(ErrorCode.INVALID_DATA, Command.UNWRAP_DATA, u16(WRAP) + blob)
    packed = ccm.open_blob(SECRET, blob)
    data = bench.call(Command.WRAP_DATA, u16(WRAP) + packed[1:])
    bench.delete(ObjectType.ASYMMETRIC_KEY, 1)
    bench.fails(ErrorCode.INVALID_DATA, Command.IMPORT_WRAPPED, u16(WRAP) + data)
    bench.fails(ErrorCode.WRONG_LENGTH, Command.WRAP_DATA, u16(WRAP))


@pytest.mark.parametrize("algorithm", KEYPAIRS, ids=lambda one: one.name)
def test_a_key_comes_back_as_it_was(bench: Bench, algorithm: Algorithm) -> None:
    before = bench.keypair(7, algorithm)
    public = bench.call(Command.GET_PUBLIC_KEY, u16(7))
    blob = exported(bench, ObjectType.ASYMMETRIC_KEY, 7, b"\x01")
    bench.fails(ErrorCode.OBJECT_EXISTS, Command.IMPORT_WRAPPED, u16(WRAP) + blob)
    bench.delete(ObjectType.ASYMMETRIC_KEY, 7)
    assert bench.call(Command.IMPORT_WRAPPED, u16(WRAP) + blob) == b"\x03\x00\x07"
    after = bench.find(ObjectType.ASYMMETRIC_KEY, 7)
    assert (after.material, after.label, after.capabilities) == (before.material, before.label, before.capabilities)
    assert (after.origin, after.sequence) == (0x12, 1)
    assert bench.call(Command.GET_PUBLIC_KEY, u16(7)) == public


def test_every_other_kind_of_object_travels_too(bench: Bench) -> None:
    auth = os.urandom(32)
    for kind, object_id, algorithm, material in (
        (ObjectType.OPAQUE, 1, Algorithm.OPAQUE_DATA, b"bytes"),
        (ObjectType.TEMPLATE, 2, Algorithm.TEMPLATE_SSH, b"bytes"),
        (ObjectType.AUTHENTICATION_KEY, 3, Algorithm.AES128_YUBICO_AUTHENTICATION, auth),
        (ObjectType.WRAP_KEY, 4, Algorithm.AES128_CCM_WRAP, bytes(16)),
        (ObjectType.HMAC_KEY, 5, Algorithm.HMAC_SHA1, b"\x36" * 64 + b"\x5c" * 64),
        (ObjectType.SYMMETRIC_KEY, 6, Algorithm.AES192, bytes(24)),
        (ObjectType.OTP_AEAD_KEY, 7, Algorithm.AES192_YUBICO_OTP, bytes(28)),
        (ObjectType.PUBLIC_WRAP_KEY, 8, Algorithm.RSA_2048, key_of(Algorithm.RSA_2048)[-256:]),
    ):
        before = bench.keep(kind, object_id, algorithm, material, delegated=0x1234)
        blob = exported(bench, kind, object_id)
        bench.delete(kind, object_id)
        assert bench.call(Command.IMPORT_WRAPPED, u16(WRAP) + blob) == bytes((kind,)) + u16(object_id)
        after = bench.find(kind, object_id)
        assert (after.material, after.body) == (before.material, before.body)


@pytest.mark.parametrize(("tail", "length"), [(b"", 96), (b"\x00", 96), (b"\x01", 128)])
def test_an_ed25519_key_signs_the_same_with_and_without_its_seed(bench: Bench, tail: bytes, length: int) -> None:
    bench.keypair(7, Algorithm.EC_ED25519)
    signature = bench.call(Command.SIGN_EDDSA, u16(7) + b"message")
    blob = exported(bench, ObjectType.ASYMMETRIC_KEY, 7, tail)
    bench.delete(ObjectType.ASYMMETRIC_KEY, 7)
    bench.call(Command.IMPORT_WRAPPED, u16(WRAP) + blob)
    assert bench.find(ObjectType.ASYMMETRIC_KEY, 7).length == length
    assert bench.call(Command.SIGN_EDDSA, u16(7) + b"message") == signature
    bench.fails(ErrorCode.INVALID_DATA, Command.EXPORT_WRAPPED, u16(WRAP) + b"\x03" + u16(7) + b"\x02")


def test_blobs_open_only_under_their_own_key(bench: Bench) -> None:
    bench.keypair(7, Algorithm.EC_P256)
    blob = exported(bench, ObjectType.ASYMMETRIC_KEY, 7)
    bench.delete(ObjectType.ASYMMETRIC_KEY, 7)
    bench.fails(ErrorCode.INVALID_DATA, Command.IMPORT_WRAPPED, u16(OTHER) + blob)
    bench.fails(ErrorCode.INVALID_DATA, Command.IMPORT_WRAPPED, u16(RSA_WRAP) + blob)
    bench.fails(ErrorCode.OBJECT_NOT_FOUND, Command.IMPORT_WRAPPED, u16(0x77) + blob)
    bench.keep(
        ObjectType.WRAP_KEY,
        0x20,
        Algorithm.AES256_CCM_WRAP,
        SECRET,
        delegated=ALL_CAPABILITIES & ~Capability.SIGN_ECDSA,
    )
    bench.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, Command.IMPORT_WRAPPED, u16(0x20) + blob)
    # The same bytes sealed for another algorithm of wrap key are not this key's.
    for number in (0, Algorithm.AES128_CCM_WRAP, Algorithm.RSA_2048):
        foreign = ccm.seal(SECRET, bytes((number,)) + ccm.open_blob(SECRET, blob)[1:])
        bench.fails(ErrorCode.INVALID_DATA, Command.IMPORT_WRAPPED, u16(WRAP) + foreign)


@settings(deadline=None)
@given(st.data())
def test_blobs_with_a_flipped_bit_never_open(data: st.DataObject) -> None:
    bench = Bench()
    bench.keep(ObjectType.WRAP_KEY, WRAP, Algorithm.AES256_CCM_WRAP, SECRET, delegated=ALL_CAPABILITIES)
    bench.keypair(7, Algorithm.EC_P256)
    blob = bytearray(exported(bench, ObjectType.ASYMMETRIC_KEY, 7))
    bench.delete(ObjectType.ASYMMETRIC_KEY, 7)
    bit = data.draw(st.integers(0, 8 * len(blob) - 1))
    blob[bit // 8] ^= 1 << bit % 8
    bench.fails(ErrorCode.INVALID_DATA, Command.IMPORT_WRAPPED, u16(WRAP) + bytes(blob))


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_any_sealed_bytes_are_an_object_or_refused(plaintext: bytes) -> None:
    bench = Bench()
    bench.keep(ObjectType.WRAP_KEY, WRAP, Algorithm.AES256_CCM_WRAP, SECRET)
    blob = ccm.seal(SECRET, bytes((Algorithm.AES256_CCM_WRAP,)) + plaintext)
    bench.fails(ErrorCode.INVALID_DATA, Command.IMPORT_WRAPPED, u16(WRAP) + blob)


def test_what_export_wants(bench: Bench) -> None:
    ask = u16(WRAP) + b"\x03" + u16(7)
    bench.fails(ErrorCode.OBJECT_NOT_FOUND, Command.EXPORT_WRAPPED, ask)
    bench.keypair(7, Algorithm.EC_P256, ALL_CAPABILITIES & ~EXPORTABLE)
    bench.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, Command.EXPORT_WRAPPED, ask)
    bench.delete(ObjectType.ASYMMETRIC_KEY, 7)
    bench.keypair(7, Algorithm.EC_P256, Capability.SIGN_ECDSA | EXPORTABLE)
    bench.keep(ObjectType.WRAP_KEY, 0x20, Algorithm.AES256_CCM_WRAP, SECRET, delegated=Capability.SIGN_ECDSA)
    bench.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, Command.EXPORT_WRAPPED, u16(0x20) + ask[2:])
    bench.keep(
        ObjectType.WRAP_KEY,
        0x21,
        Algorithm.AES256_CCM_WRAP,
        SECRET,
        capabilities=ALL_CAPABILITIES & ~Capability.EXPORT_WRAPPED,
        delegated=ALL_CAPABILITIES,
    )
    bench.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, Command.EXPORT_WRAPPED, u16(0x21) + ask[2:])
    bench.fails(ErrorCode.OBJECT_NOT_FOUND, Command.EXPORT_WRAPPED, u16(0x22) + ask[2:])
    bench.fails(ErrorCode.INVALID_DATA, Command.EXPORT_WRAPPED, u16(WRAP) + b"\x0a" + u16(7))
    bench.fails(ErrorCode.WRONG_LENGTH, Command.EXPORT_WRAPPED, ask[:-1])
    bench.fails(ErrorCode.WRONG_LENGTH, Command.EXPORT_WRAPPED, ask + b"\x01\x00")
    bench.limited(domains=0).fails(ErrorCode.OBJECT_NOT_FOUND, Command.EXPORT_WRAPPED, ask)


def test_a_wrap_key_of_rsa_is_invalid_data_even_without_the_capability(bench: Bench) -> None:
    bench.keypair(7, Algorithm.EC_P256)
    bench.keep(ObjectType.WRAP_KEY, 0x20, Algorithm.RSA_2048, key_of(Algorithm.RSA_2048), capabilities=0)
    for object_id in (RSA_WRAP, 0x20):
        bench.fails(ErrorCode.INVALID_DATA, Command.EXPORT_WRAPPED, u16(object_id) + b"\x03" + u16(7))


def test_permissions_are_looked_at_before_the_id(bench: Bench) -> None:
    bench.keypair(7, Algorithm.EC_P256)
    blob = exported(bench, ObjectType.ASYMMETRIC_KEY, 7)
    bench.keep(ObjectType.WRAP_KEY, 0x20, Algorithm.AES256_CCM_WRAP, SECRET, delegated=0)
    bench.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, Command.IMPORT_WRAPPED, u16(0x20) + blob)
    bench.fails(ErrorCode.OBJECT_EXISTS, Command.IMPORT_WRAPPED, u16(WRAP) + blob)


def test_domains_are_narrowed_to_those_of_the_wrap_key(bench: Bench) -> None:
    one = bench.keep(ObjectType.OPAQUE, 9, Algorithm.OPAQUE_DATA, b"x", domains=0b0111, capabilities=EXPORTABLE)
    blob = exported(bench, ObjectType.OPAQUE, 9)
    bench.delete(ObjectType.OPAQUE, 9)
    for object_id, domains in ((0x20, 0b1110), (0x21, 0b1000)):
        bench.keep(
            ObjectType.WRAP_KEY,
            object_id,
            Algorithm.AES256_CCM_WRAP,
            SECRET,
            domains=domains,
            delegated=ALL_CAPABILITIES,
        )
    bench.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, Command.IMPORT_WRAPPED, u16(0x21) + blob)
    assert bench.call(Command.IMPORT_WRAPPED, u16(0x20) + blob) == bytes((one.type,)) + u16(9)
    assert bench.find(ObjectType.OPAQUE, 9).domains == 0b0110


def test_objects_made_elsewhere_come_in(bench: Bench) -> None:
    """As `yubihsm-wrap` makes them: origin imported, sequence 0; a random id for id 0."""
    bench.keypair(7, Algorithm.EC_P256)
    content = WrappedObject.parse(ccm.open_blob(SECRET, exported(bench, ObjectType.ASYMMETRIC_KEY, 7))).content
    made = WrappedObject(Algorithm.AES256_CCM_WRAP, content).pack()
    blob = ccm.seal(SECRET, made[:9] + bytes(2) + made[11:])
    answer = bench.call(Command.IMPORT_WRAPPED, u16(WRAP) + blob)
    assert answer[0] == ObjectType.ASYMMETRIC_KEY
    assert bench.find(ObjectType.ASYMMETRIC_KEY, int.from_bytes(answer[1:], "big")).origin == 0x12
    bench.fails(
        ErrorCode.INVALID_ID,
        Command.IMPORT_WRAPPED,
        u16(WRAP) + ccm.seal(SECRET, made[:9] + b"\xff\xff" + made[11:]),
    )


def test_wrap_keys_are_made_with_what_they_may_give(bench: Bench) -> None:
    less = bench.limited()
    less.holder = type(less.holder)(1, 0xFFFF, ALL_CAPABILITIES, Capability.WRAP_DATA)
    made = header(0, Algorithm.AES128_CCM_WRAP, capabilities=Capability.WRAP_DATA, delegated=Capability.WRAP_DATA)
    assert less.call(Command.GENERATE_WRAP_KEY, made)
    too_much = header(0, Algorithm.AES128_CCM_WRAP, capabilities=0, delegated=Capability.SIGN_ECDSA)
    less.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, Command.GENERATE_WRAP_KEY, too_much)
