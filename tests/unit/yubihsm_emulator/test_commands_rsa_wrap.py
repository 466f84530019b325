import os

import pytest
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.emulated_device import Bench, header, key_of, refused, u16
from yubihsm_emulator.codes import ALL_CAPABILITIES, Algorithm, Capability, Command, ObjectType
from yubihsm_emulator.errors import ErrorCode
from yubihsm_emulator.material import digests, rsa, rsa_wrap

PUBLIC, PRIVATE = 0x10, 0x11
SHA1, SHA256, SHA512 = hashes.SHA1(), hashes.SHA256(), hashes.SHA512()
RSA = key_of(Algorithm.RSA_2048)
EMPTY = digests.digest(SHA256, b"")
CHOICE = bytes((Algorithm.RSA_OAEP_SHA256, Algorithm.RSA_MGF1_SHA256))
AES256 = bytes((Algorithm.AES256,))


@pytest.fixture
def bench() -> Bench:
    """A public wrap key and its private half, which may both give away everything."""
    return stocked()


def stocked() -> Bench:
    made = Bench()
    made.keep(ObjectType.PUBLIC_WRAP_KEY, PUBLIC, Algorithm.RSA_2048, rsa.modulus(RSA), delegated=ALL_CAPABILITIES)
    made.keep(ObjectType.WRAP_KEY, PRIVATE, Algorithm.RSA_2048, RSA, delegated=ALL_CAPABILITIES)
    return made


def asked(kind: ObjectType, object_id: int, tail: bytes = AES256 + CHOICE + EMPTY) -> bytes:
    return u16(PUBLIC) + bytes((kind,)) + u16(object_id) + tail


def raw_import(
    kind: ObjectType, algorithm: Algorithm, blob: bytes, *, capabilities: int = 0, domains: int = 1
) -> bytes:
    properties = header(0x55, algorithm, capabilities=capabilities, domains=domains)
    return u16(PRIVATE) + bytes((kind,)) + properties + CHOICE + blob + EMPTY


@pytest.mark.parametrize("aes_algorithm", [Algorithm.AES128, Algorithm.AES192, Algorithm.AES256])
@pytest.mark.parametrize("command", [Command.GET_RSA_WRAPPED_KEY, Command.EXPORT_RSA_WRAPPED])
def test_blobs_are_those_of_rsa_aes_key_wrap(bench: Bench, command: Command, aes_algorithm: Algorithm) -> None:
    """Opened with a library: OAEP with a label, another hash for its mask, then RFC 5649."""
    material = os.urandom(16)
    bench.keep(ObjectType.SYMMETRIC_KEY, 1, Algorithm.AES128, material)
    choice = bytes((aes_algorithm, Algorithm.RSA_OAEP_SHA512, Algorithm.RSA_MGF1_SHA1))
    blob = bench.call(command, asked(ObjectType.SYMMETRIC_KEY, 1, choice + digests.digest(SHA512, b"label")))
    oaep = padding.OAEP(padding.MGF1(SHA1), SHA512, b"label")
    key = rsa.private_key(RSA).decrypt(blob[:256], oaep)
    assert len(key) == {Algorithm.AES128: 16, Algorithm.AES192: 24, Algorithm.AES256: 32}[aes_algorithm]
    plaintext = keywrap.aes_key_unwrap_with_padding(key, blob[256:])
    if command is Command.GET_RSA_WRAPPED_KEY:
        assert plaintext == material
    else:
        assert (plaintext[0], plaintext[59:]) == (Algorithm.RSA_2048, material)


@pytest.mark.parametrize(
    "algorithm", [Algorithm.RSA_2048, Algorithm.EC_P256, Algorithm.EC_P521, Algorithm.EC_K256, Algorithm.EC_ED25519]
)
def test_whole_objects_travel(bench: Bench, algorithm: Algorithm) -> None:
    before = bench.keypair(7, algorithm)
    blob = bench.call(Command.EXPORT_RSA_WRAPPED, asked(ObjectType.ASYMMETRIC_KEY, 7))
    come_in = u16(PRIVATE) + CHOICE + blob + EMPTY
    bench.fails(ErrorCode.OBJECT_EXISTS, Command.IMPORT_RSA_WRAPPED, come_in)
    bench.delete(ObjectType.ASYMMETRIC_KEY, 7)
    assert bench.call(Command.IMPORT_RSA_WRAPPED, come_in) == b"\x03\x00\x07"
    after = bench.find(ObjectType.ASYMMETRIC_KEY, 7)
    assert (after.material, after.label, after.origin) == (before.material, before.label, 0x12)


@pytest.mark.parametrize(
    "algorithm", [Algorithm.RSA_2048, Algorithm.EC_P256, Algorithm.EC_P521, Algorithm.EC_BP256, Algorithm.EC_ED25519]
)
def test_bare_keys_travel_as_pkcs8(bench: Bench, algorithm: Algorithm) -> None:
    before = bench.keypair(7, algorithm)
    blob = bench.call(Command.GET_RSA_WRAPPED_KEY, asked(ObjectType.ASYMMETRIC_KEY, 7))
    plaintext = rsa_wrap.open_blob(RSA, blob, rsa_wrap.Padding(EMPTY, SHA256))
    assert serialization.load_der_private_key(plaintext, None)
    answer = bench.call(Command.PUT_RSA_WRAPPED_KEY, raw_import(ObjectType.ASYMMETRIC_KEY, algorithm, blob))
    assert answer == b"\x03\x00\x55"
    after = bench.find(ObjectType.ASYMMETRIC_KEY, 0x55)
    assert (after.material, after.origin, after.capabilities, after.domains) == (before.material, 0x12, 0, 1)


def test_bare_symmetric_keys_travel_as_they_are(bench: Bench) -> None:
    bench.keep(ObjectType.SYMMETRIC_KEY, 1, Algorithm.AES192, b"k" * 24)
    blob = bench.call(Command.GET_RSA_WRAPPED_KEY, asked(ObjectType.SYMMETRIC_KEY, 1))
    wrong = raw_import(ObjectType.SYMMETRIC_KEY, Algorithm.AES256, blob)
    bench.fails(ErrorCode.INVALID_DATA, Command.PUT_RSA_WRAPPED_KEY, wrong)
    right = raw_import(ObjectType.SYMMETRIC_KEY, Algorithm.AES192, blob)
    assert bench.call(Command.PUT_RSA_WRAPPED_KEY, right) == b"\x08\x00\x55"
    assert bench.find(ObjectType.SYMMETRIC_KEY, 0x55).material == b"k" * 24
    bench.fails(ErrorCode.OBJECT_EXISTS, Command.PUT_RSA_WRAPPED_KEY, right)


def test_a_key_of_another_algorithm_is_refused(bench: Bench) -> None:
    for algorithm in (Algorithm.RSA_2048, Algorithm.EC_P256, Algorithm.EC_ED25519):
        bench.keypair(algorithm, algorithm)
        blob = bench.call(Command.GET_RSA_WRAPPED_KEY, asked(ObjectType.ASYMMETRIC_KEY, algorithm))
        wrong = raw_import(ObjectType.ASYMMETRIC_KEY, Algorithm.EC_P384, blob)
        bench.fails(ErrorCode.INVALID_DATA, Command.PUT_RSA_WRAPPED_KEY, wrong)
    for kind in (ObjectType.HMAC_KEY, ObjectType.OPAQUE, ObjectType.WRAP_KEY):
        bench.fails(ErrorCode.INVALID_DATA, Command.PUT_RSA_WRAPPED_KEY, raw_import(kind, Algorithm.EC_P256, blob))


def test_only_pairs_and_symmetric_keys_travel_bare(bench: Bench) -> None:
    bench.keep(ObjectType.HMAC_KEY, 1, Algorithm.HMAC_SHA1, b"\x36" * 64 + b"\x5c" * 64)
    bench.fails(ErrorCode.INVALID_DATA, Command.GET_RSA_WRAPPED_KEY, asked(ObjectType.HMAC_KEY, 1))
    assert bench.call(Command.EXPORT_RSA_WRAPPED, asked(ObjectType.HMAC_KEY, 1))
    seedless = key_of(Algorithm.EC_ED25519)[:96]
    bench.keep(ObjectType.ASYMMETRIC_KEY, 2, Algorithm.EC_ED25519, seedless)
    bench.fails(ErrorCode.INVALID_DATA, Command.GET_RSA_WRAPPED_KEY, asked(ObjectType.ASYMMETRIC_KEY, 2))


def test_what_both_exports_want(bench: Bench) -> None:
    bench.keypair(7, Algorithm.EC_P256, Capability.SIGN_ECDSA | Capability.EXPORTABLE_UNDER_WRAP)
    bench.keypair(8, Algorithm.EC_P256, ALL_CAPABILITIES & ~Capability.EXPORTABLE_UNDER_WRAP)
    modulus = rsa.modulus(RSA)
    bench.keep(ObjectType.PUBLIC_WRAP_KEY, 0x20, Algorithm.RSA_2048, modulus, delegated=Capability.SIGN_ECDSA)
    without = ALL_CAPABILITIES & ~Capability.EXPORT_WRAPPED
    bench.keep(
        ObjectType.PUBLIC_WRAP_KEY, 0x21, Algorithm.RSA_2048, modulus, capabilities=without, delegated=ALL_CAPABILITIES
    )
    right = asked(ObjectType.ASYMMETRIC_KEY, 7)
    for command in (Command.GET_RSA_WRAPPED_KEY, Command.EXPORT_RSA_WRAPPED):
        assert bench.call(command, right)
        bench.limited(capabilities=without).fails(ErrorCode.INSUFFICIENT_PERMISSIONS, command, right)
        for key in (0x20, 0x21):
            bench.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, command, u16(key) + right[2:])
        bench.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, command, asked(ObjectType.ASYMMETRIC_KEY, 8))
        bench.fails(ErrorCode.OBJECT_NOT_FOUND, command, asked(ObjectType.ASYMMETRIC_KEY, 9))
        bench.fails(ErrorCode.OBJECT_NOT_FOUND, command, u16(PRIVATE) + right[2:])
        for size in range(len(right)):
            refused(ErrorCode.WRONG_LENGTH, lambda command=command, size=size: bench.call(command, right[:size]))
        bench.fails(ErrorCode.WRONG_LENGTH, command, right + b"\x00")
        for position, number in ((5, Algorithm.EC_P256), (6, Algorithm.RSA_MGF1_SHA1), (7, Algorithm.RSA_OAEP_SHA1)):
            bench.fails(ErrorCode.INVALID_DATA, command, right[:position] + bytes((number,)) + right[position + 1 :])
            bench.fails(ErrorCode.INVALID_DATA, command, right[:position] + b"\xee" + right[position + 1 :])
        for algorithm in (Algorithm.AES256, Algorithm.RSA_OAEP_SHA256, Algorithm.RSA_MGF1_SHA256, Algorithm.AES_KWP):
            bench.device.options.disabled = {algorithm}
            bench.fails(ErrorCode.ALGORITHM_DISABLED, command, right)
        bench.device.options.disabled = set()


def test_what_both_imports_want(bench: Bench) -> None:
    bench.keypair(7, Algorithm.EC_P256, Capability.SIGN_ECDSA | Capability.EXPORTABLE_UNDER_WRAP)
    whole = bench.call(Command.EXPORT_RSA_WRAPPED, asked(ObjectType.ASYMMETRIC_KEY, 7))
    bare = bench.call(Command.GET_RSA_WRAPPED_KEY, asked(ObjectType.ASYMMETRIC_KEY, 7))
    bench.delete(ObjectType.ASYMMETRIC_KEY, 7)
    bench.keep(ObjectType.WRAP_KEY, 0x20, Algorithm.RSA_2048, RSA, delegated=0)
    bench.keep(ObjectType.WRAP_KEY, 0x21, Algorithm.RSA_2048, RSA, capabilities=0, delegated=ALL_CAPABILITIES)
    bench.keep(ObjectType.WRAP_KEY, 0x22, Algorithm.AES128_CCM_WRAP, bytes(16), delegated=ALL_CAPABILITIES)
    bench.keep(ObjectType.WRAP_KEY, 0x23, Algorithm.RSA_2048, RSA, delegated=ALL_CAPABILITIES, domains=0x8000)
    cases = (
        (Command.IMPORT_RSA_WRAPPED, u16(PRIVATE) + CHOICE + whole + EMPTY),
        (
            Command.PUT_RSA_WRAPPED_KEY,
            raw_import(ObjectType.ASYMMETRIC_KEY, Algorithm.EC_P256, bare, capabilities=Capability.SIGN_ECDSA),
        ),
    )
    for command, right in cases:
        bench.limited(capabilities=0).fails(ErrorCode.INSUFFICIENT_PERMISSIONS, command, right)
        bench.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, command, u16(0x20) + right[2:])
        bench.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, command, u16(0x21) + right[2:])
        bench.fails(ErrorCode.INVALID_DATA, command, u16(0x22) + right[2:])
        bench.fails(ErrorCode.OBJECT_NOT_FOUND, command, u16(0x24) + right[2:])
        bench.fails(ErrorCode.INVALID_DATA, command, right[:-1] + bytes((right[-1] ^ 1,)))
        bench.fails(ErrorCode.WRONG_LENGTH, command, right[:60])
        bench.fails(ErrorCode.WRONG_LENGTH, command, right[: -len(whole)] + EMPTY)
        assert bench.call(command, right)[:1] == b"\x03"
    bench.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, Command.PUT_RSA_WRAPPED_KEY, u16(0x23) + cases[1][1][2:])
    # A blob of one kind is none of the other.
    bench.fails(ErrorCode.INVALID_DATA, Command.IMPORT_RSA_WRAPPED, u16(PRIVATE) + CHOICE + bare + EMPTY)
    crossed = raw_import(ObjectType.ASYMMETRIC_KEY, Algorithm.EC_P256, whole)
    bench.fails(ErrorCode.INVALID_DATA, Command.PUT_RSA_WRAPPED_KEY, crossed)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_blobs_with_a_flipped_bit_never_open(data: st.DataObject) -> None:
    bench = stocked()
    bench.keypair(7, Algorithm.EC_P256)
    blob = bytearray(bench.call(Command.EXPORT_RSA_WRAPPED, asked(ObjectType.ASYMMETRIC_KEY, 7)))
    bench.delete(ObjectType.ASYMMETRIC_KEY, 7)
    bit = data.draw(st.integers(0, 8 * len(blob) - 1))
    blob[bit // 8] ^= 1 << bit % 8
    bench.fails(ErrorCode.INVALID_DATA, Command.IMPORT_RSA_WRAPPED, u16(PRIVATE) + CHOICE + bytes(blob) + EMPTY)


def test_keys_wrapped_elsewhere_come_in(bench: Bench) -> None:
    """As a PKCS#11 token or openssl would wrap them for this device."""
    key = ec.generate_private_key(ec.SECP384R1())
    encoded = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    oaep = padding.OAEP(padding.MGF1(SHA256), SHA256, None)
    blob = rsa.public_key(rsa.modulus(RSA)).encrypt(b"e" * 32, oaep)
    blob += keywrap.aes_key_wrap_with_padding(b"e" * 32, encoded)
    bench.call(Command.PUT_RSA_WRAPPED_KEY, raw_import(ObjectType.ASYMMETRIC_KEY, Algorithm.EC_P384, blob))
    public = bench.call(Command.GET_PUBLIC_KEY, u16(0x55))
    numbers = key.public_key().public_numbers()
    assert public == bytes((Algorithm.EC_P384,)) + numbers.x.to_bytes(48, "big") + numbers.y.to_bytes(48, "big")


def test_public_halves_are_told() -> None:
    bench = stocked()
    bench.keep(ObjectType.WRAP_KEY, 0x30, Algorithm.AES128_CCM_WRAP, bytes(16))
    expected = bytes((Algorithm.RSA_2048,)) + rsa.modulus(RSA)
    assert bench.call(Command.GET_PUBLIC_KEY, u16(PUBLIC) + b"\x09") == expected
    assert bench.call(Command.GET_PUBLIC_KEY, u16(PRIVATE) + b"\x04") == expected
    bench.fails(ErrorCode.INVALID_DATA, Command.GET_PUBLIC_KEY, u16(0x30) + b"\x04")
    bench.fails(ErrorCode.INVALID_DATA, Command.GET_PUBLIC_KEY, u16(PRIVATE) + b"\x05")
    bench.fails(ErrorCode.OBJECT_NOT_FOUND, Command.GET_PUBLIC_KEY, u16(PRIVATE))
    bench.fails(ErrorCode.WRONG_LENGTH, Command.GET_PUBLIC_KEY, u16(PRIVATE) + b"\x04\x00")
