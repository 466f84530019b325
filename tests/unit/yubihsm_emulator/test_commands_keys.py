"""The rules that every command with a key obeys, whatever it does with it."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.emulated_device import Bench, header, key_of, u16
from yubihsm_emulator.codes import ALL_CAPABILITIES, Algorithm, Capability, Command, ObjectType
from yubihsm_emulator.commands import (
    TABLE,
    asymmetric,
    attestation,
    hmac_keys,
    otp,
    rsa_wrap,
    ssh,
    symmetric,
    wrap,
)
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import aes, ccm, ec, hmac_key, rsa
from yubihsm_emulator.material import otp as otp_material

KEY = 0x21
RSA, P256, ED = (key_of(one) for one in (Algorithm.RSA_2048, Algorithm.EC_P256, Algorithm.EC_ED25519))
RSA_PUBLIC = rsa.public_key(rsa.modulus(RSA))
HMAC = hmac_key.from_key(Algorithm.HMAC_SHA256, b"secret")
AES = os.urandom(32)
OTP = otp_material.generate(Algorithm.AES128_YUBICO_OTP, b"nonc")
CREDENTIAL = bytes.fromhex("000102030405060708090a0b0c0d0e0f010203040506")
AEAD = otp_material.seal(OTP, CREDENTIAL)
ONE_TIME = bytes.fromhex("2f5d71a4915dec304aa13ccf97bb0dbb")
SHA256 = hashes.SHA256()
EMPTY_LABEL = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


@dataclass(frozen=True)
class Use:
    """A use of a key, what it answers, and the algorithm whose being switched off stops it (beside the key's own)."""

    command: Command
    kind: ObjectType
    algorithm: Algorithm
    material: bytes
    capability: Capability
    data: bytes
    answer: bytes | None = None
    method: Algorithm | None = None
    unsuited: Algorithm | None = None
    lacking: ErrorCode = ErrorCode.INSUFFICIENT_PERMISSIONS


ASYMMETRIC = ObjectType.ASYMMETRIC_KEY
USES = [
    Use(
        Command.SIGN_PKCS1, ASYMMETRIC, Algorithm.RSA_2048, RSA, Capability.SIGN_PKCS,
        EMPTY_LABEL, rsa.sign_pkcs1(RSA, EMPTY_LABEL), Algorithm.RSA_PKCS1_SHA256, Algorithm.EC_P256,
    ),
    Use(
        Command.SIGN_PSS, ASYMMETRIC, Algorithm.RSA_2048, RSA, Capability.SIGN_PSS,
        bytes((Algorithm.RSA_MGF1_SHA256, 0, 0)) + EMPTY_LABEL, rsa.sign_pss(RSA, EMPTY_LABEL, 0, SHA256),
        Algorithm.RSA_PSS_SHA256, Algorithm.EC_ED25519,
    ),
    Use(
        Command.DECRYPT_PKCS1, ASYMMETRIC, Algorithm.RSA_2048, RSA, Capability.DECRYPT_PKCS,
        RSA_PUBLIC.encrypt(b"open", padding.PKCS1v15()), b"open", Algorithm.RSA_PKCS1_DECRYPT, Algorithm.EC_P256,
    ),
    Use(
        Command.DECRYPT_OAEP, ASYMMETRIC, Algorithm.RSA_2048, RSA, Capability.DECRYPT_OAEP,
        bytes((Algorithm.RSA_MGF1_SHA1,))
        + RSA_PUBLIC.encrypt(b"open", padding.OAEP(padding.MGF1(hashes.SHA1()), SHA256, None))
        + EMPTY_LABEL,
        b"open", Algorithm.RSA_OAEP_SHA256, Algorithm.EC_P256,
    ),
    Use(
        Command.SIGN_ECDSA, ASYMMETRIC, Algorithm.EC_P256, P256, Capability.SIGN_ECDSA,
        EMPTY_LABEL, None, Algorithm.EC_ECDSA_SHA256, Algorithm.RSA_2048,
    ),
    Use(
        Command.DERIVE_ECDH, ASYMMETRIC, Algorithm.EC_P256, P256, Capability.DERIVE_ECDH,
        b"\x04" + ec.point(P256), None, Algorithm.EC_ECDH, Algorithm.EC_ED25519,
    ),
    Use(
        Command.SIGN_EDDSA, ASYMMETRIC, Algorithm.EC_ED25519, ED, Capability.SIGN_EDDSA,
        b"message", None, None, Algorithm.EC_P256,
    ),
    Use(
        Command.SIGN_HMAC, ObjectType.HMAC_KEY, Algorithm.HMAC_SHA256, HMAC, Capability.SIGN_HMAC,
        b"data", hmac_key.sign(Algorithm.HMAC_SHA256, HMAC, b"data"),
    ),
    Use(
        Command.VERIFY_HMAC, ObjectType.HMAC_KEY, Algorithm.HMAC_SHA256, HMAC, Capability.VERIFY_HMAC,
        hmac_key.sign(Algorithm.HMAC_SHA256, HMAC, b"data") + b"data", b"\x01",
    ),
    Use(
        Command.ENCRYPT_ECB, ObjectType.SYMMETRIC_KEY, Algorithm.AES256, AES, Capability.ENCRYPT_ECB,
        bytes(32), aes.encrypt_ecb(AES, bytes(32)), Algorithm.AES_ECB,
    ),
    Use(
        Command.DECRYPT_ECB, ObjectType.SYMMETRIC_KEY, Algorithm.AES256, AES, Capability.DECRYPT_ECB,
        bytes(32), aes.decrypt_ecb(AES, bytes(32)), Algorithm.AES_ECB,
    ),
    Use(
        Command.ENCRYPT_CBC, ObjectType.SYMMETRIC_KEY, Algorithm.AES256, AES, Capability.ENCRYPT_CBC,
        b"i" * 16 + bytes(32), aes.encrypt_cbc(AES, b"i" * 16, bytes(32)), Algorithm.AES_CBC,
    ),
    Use(
        Command.DECRYPT_CBC, ObjectType.SYMMETRIC_KEY, Algorithm.AES256, AES, Capability.DECRYPT_CBC,
        b"i" * 16 + bytes(32), aes.decrypt_cbc(AES, b"i" * 16, bytes(32)), Algorithm.AES_CBC,
    ),
    Use(
        Command.WRAP_DATA, ObjectType.WRAP_KEY, Algorithm.AES256_CCM_WRAP, AES, Capability.WRAP_DATA,
        b"data", None, None, Algorithm.RSA_2048, ErrorCode.INVALID_DATA,
    ),
    Use(
        Command.UNWRAP_DATA, ObjectType.WRAP_KEY, Algorithm.AES256_CCM_WRAP, AES, Capability.UNWRAP_DATA,
        ccm.seal(AES, b"\x00data"), b"data", None, Algorithm.RSA_2048, ErrorCode.INVALID_DATA,
    ),
    Use(
        Command.CREATE_OTP_AEAD, ObjectType.OTP_AEAD_KEY, Algorithm.AES128_YUBICO_OTP, OTP,
        Capability.CREATE_OTP_AEAD, CREDENTIAL,
    ),
    Use(
        Command.RANDOMIZE_OTP_AEAD, ObjectType.OTP_AEAD_KEY, Algorithm.AES128_YUBICO_OTP, OTP,
        Capability.RANDOMIZE_OTP_AEAD, b"",
    ),
    Use(
        Command.REWRAP_OTP_AEAD, ObjectType.OTP_AEAD_KEY, Algorithm.AES128_YUBICO_OTP, OTP,
        Capability.REWRAP_FROM_OTP_AEAD_KEY, u16(KEY) + AEAD,
    ),
    Use(
        Command.REWRAP_OTP_AEAD, ObjectType.OTP_AEAD_KEY, Algorithm.AES128_YUBICO_OTP, OTP,
        Capability.REWRAP_TO_OTP_AEAD_KEY, u16(KEY) + AEAD,
    ),
    Use(
        Command.DECRYPT_OTP, ObjectType.OTP_AEAD_KEY, Algorithm.AES128_YUBICO_OTP, OTP,
        Capability.DECRYPT_OTP, AEAD + ONE_TIME, bytes.fromhex("010001010100"),
    ),
]  # fmt: skip
each_use = pytest.mark.parametrize("use", USES, ids=lambda use: use.capability.name)


@each_use
def test_works_with_the_capability_on_both_and_nothing_else(use: Use) -> None:
    both = use.capability
    if use.command is Command.REWRAP_OTP_AEAD:
        both |= Capability.REWRAP_FROM_OTP_AEAD_KEY | Capability.REWRAP_TO_OTP_AEAD_KEY
    bench = Bench()
    bench.keep(use.kind, KEY, use.algorithm, use.material, capabilities=both)
    answer = bench.limited(capabilities=both).call(use.command, u16(KEY) + use.data)
    if use.answer is not None:
        assert answer == use.answer
    else:
        assert answer


@each_use
def test_the_session_needs_the_capability(use: Use) -> None:
    bench = Bench()
    bench.keep(use.kind, KEY, use.algorithm, use.material)
    less = bench.limited(capabilities=ALL_CAPABILITIES & ~use.capability)
    less.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, use.command, u16(KEY) + use.data)


@each_use
def test_the_key_needs_the_capability(use: Use) -> None:
    bench = Bench()
    bench.keep(use.kind, KEY, use.algorithm, use.material, capabilities=ALL_CAPABILITIES & ~use.capability)
    bench.fails(use.lacking, use.command, u16(KEY) + use.data)


@each_use
def test_a_key_in_no_domain_of_the_session_is_not_found(use: Use) -> None:
    bench = Bench()
    bench.fails(ErrorCode.OBJECT_NOT_FOUND, use.command, u16(KEY) + use.data)
    bench.keep(use.kind, KEY, use.algorithm, use.material, domains=0b0110)
    bench.limited(domains=0b1001).fails(ErrorCode.OBJECT_NOT_FOUND, use.command, u16(KEY) + use.data)
    assert bench.limited(domains=0b0011).call(use.command, u16(KEY) + use.data)


@each_use
def test_algorithms_that_are_switched_off_stop_it(use: Use) -> None:
    bench = Bench()
    bench.keep(use.kind, KEY, use.algorithm, use.material)
    for algorithm in (use.algorithm, use.method):
        if algorithm is not None:
            bench.device.options.disabled = {algorithm}
            bench.fails(ErrorCode.ALGORITHM_DISABLED, use.command, u16(KEY) + use.data)


@pytest.mark.parametrize("use", [use for use in USES if use.unsuited], ids=lambda use: use.capability.name)
def test_a_key_of_another_algorithm_is_invalid_data(use: Use) -> None:
    assert use.unsuited is not None
    bench = Bench()
    bench.keep(use.kind, KEY, use.unsuited, key_of(use.unsuited))
    bench.fails(ErrorCode.INVALID_DATA, use.command, u16(KEY) + use.data)


def test_ecdsa_signs_digests_of_known_lengths_only() -> None:
    bench = Bench()
    bench.keypair(KEY, Algorithm.EC_P256)
    for length in range(70):
        if length in {20, 28, 32, 48, 64, 66}:
            assert bench.call(Command.SIGN_ECDSA, u16(KEY) + bytes(length))
        else:
            bench.fails(ErrorCode.WRONG_LENGTH, Command.SIGN_ECDSA, u16(KEY) + bytes(length))


def test_a_wrong_mac_is_told_and_a_cut_one_is_not_looked_at() -> None:
    bench = Bench()
    bench.keep(ObjectType.HMAC_KEY, KEY, Algorithm.HMAC_SHA256, HMAC)
    mac = hmac_key.sign(Algorithm.HMAC_SHA256, HMAC, b"data")
    assert bench.call(Command.VERIFY_HMAC, u16(KEY) + mac + b"data!") == b"\x00"
    bench.fails(ErrorCode.WRONG_LENGTH, Command.VERIFY_HMAC, u16(KEY) + mac[:31])


@each_use
def test_a_request_cut_short_never_works(use: Use) -> None:
    bench = Bench()
    bench.keep(use.kind, KEY, use.algorithm, use.material)
    whole = u16(KEY) + use.data
    free = use.command in {
        Command.SIGN_EDDSA, Command.SIGN_HMAC, Command.VERIFY_HMAC, Command.WRAP_DATA, Command.SIGN_ECDSA,
        Command.SIGN_PKCS1, Command.SIGN_PSS, Command.ENCRYPT_ECB, Command.DECRYPT_ECB, Command.ENCRYPT_CBC,
        Command.DECRYPT_CBC,
    }  # fmt: skip
    for size in range(2 if free else len(whole)):
        with pytest.raises(DeviceError):
            bench.call(use.command, whole[:size])


CREATED: list[tuple[Command, ObjectType, Algorithm, Callable[[], bytes] | None, Capability, bool]] = [
    (Command.PUT_ASYMMETRIC_KEY, ASYMMETRIC, Algorithm.RSA_2048, lambda: RSA[:256], Capability.PUT_ASYMMETRIC_KEY, False),
    (Command.PUT_ASYMMETRIC_KEY, ASYMMETRIC, Algorithm.EC_P256, lambda: P256[:32], Capability.PUT_ASYMMETRIC_KEY, False),
    (Command.PUT_ASYMMETRIC_KEY, ASYMMETRIC, Algorithm.EC_ED25519, lambda: ED[96:], Capability.PUT_ASYMMETRIC_KEY, False),
    (Command.GENERATE_ASYMMETRIC_KEY, ASYMMETRIC, Algorithm.EC_P521, None, Capability.GENERATE_ASYMMETRIC_KEY, False),
    (Command.GENERATE_ASYMMETRIC_KEY, ASYMMETRIC, Algorithm.RSA_2048, None, Capability.GENERATE_ASYMMETRIC_KEY, False),
    (Command.GENERATE_ASYMMETRIC_KEY, ASYMMETRIC, Algorithm.EC_ED25519, None, Capability.GENERATE_ASYMMETRIC_KEY, False),
    (Command.PUT_SYMMETRIC_KEY, ObjectType.SYMMETRIC_KEY, Algorithm.AES256, lambda: AES, Capability.PUT_SYMMETRIC_KEY, False),
    (Command.GENERATE_SYMMETRIC_KEY, ObjectType.SYMMETRIC_KEY, Algorithm.AES192, None, Capability.GENERATE_SYMMETRIC_KEY, False),
    (Command.PUT_HMAC_KEY, ObjectType.HMAC_KEY, Algorithm.HMAC_SHA256, lambda: b"secret", Capability.PUT_HMAC_KEY, False),
    (Command.GENERATE_HMAC_KEY, ObjectType.HMAC_KEY, Algorithm.HMAC_SHA512, None, Capability.GENERATE_HMAC_KEY, False),
    (Command.PUT_OTP_AEAD_KEY, ObjectType.OTP_AEAD_KEY, Algorithm.AES128_YUBICO_OTP, lambda: OTP, Capability.PUT_OTP_AEAD_KEY, False),
    (Command.GENERATE_OTP_AEAD_KEY, ObjectType.OTP_AEAD_KEY, Algorithm.AES256_YUBICO_OTP, lambda: b"nonc", Capability.GENERATE_OTP_AEAD_KEY, False),
    (Command.PUT_WRAP_KEY, ObjectType.WRAP_KEY, Algorithm.AES256_CCM_WRAP, lambda: AES, Capability.PUT_WRAP_KEY, True),
    (Command.PUT_WRAP_KEY, ObjectType.WRAP_KEY, Algorithm.RSA_2048, lambda: RSA[:256], Capability.PUT_WRAP_KEY, True),
    (Command.GENERATE_WRAP_KEY, ObjectType.WRAP_KEY, Algorithm.AES128_CCM_WRAP, None, Capability.GENERATE_WRAP_KEY, True),
    (Command.GENERATE_WRAP_KEY, ObjectType.WRAP_KEY, Algorithm.RSA_2048, None, Capability.GENERATE_WRAP_KEY, True),
    (Command.PUT_PUBLIC_WRAP_KEY, ObjectType.PUBLIC_WRAP_KEY, Algorithm.RSA_2048, lambda: rsa.modulus(RSA), Capability.PUT_PUBLIC_WRAP_KEY, True),
]  # fmt: skip
LENGTHS = {
    # (type, algorithm): what GET OBJECT INFO reports
    (ASYMMETRIC, Algorithm.RSA_2048): 896,
    (ASYMMETRIC, Algorithm.EC_P256): 96,
    (ASYMMETRIC, Algorithm.EC_P521): 198,
    (ASYMMETRIC, Algorithm.EC_ED25519): 128,
    (ObjectType.SYMMETRIC_KEY, Algorithm.AES192): 24,
    (ObjectType.SYMMETRIC_KEY, Algorithm.AES256): 32,
    (ObjectType.HMAC_KEY, Algorithm.HMAC_SHA256): 128,
    (ObjectType.HMAC_KEY, Algorithm.HMAC_SHA512): 256,
    (ObjectType.OTP_AEAD_KEY, Algorithm.AES128_YUBICO_OTP): 20,
    (ObjectType.OTP_AEAD_KEY, Algorithm.AES256_YUBICO_OTP): 36,
    (ObjectType.WRAP_KEY, Algorithm.AES128_CCM_WRAP): 24,
    (ObjectType.WRAP_KEY, Algorithm.AES256_CCM_WRAP): 40,
    (ObjectType.WRAP_KEY, Algorithm.RSA_2048): 904,
    (ObjectType.PUBLIC_WRAP_KEY, Algorithm.RSA_2048): 264,
}


@pytest.mark.parametrize(("command", "kind", "algorithm", "tail", "capability", "delegating"), CREATED)
def test_creation(
    command: Command,
    kind: ObjectType,
    algorithm: Algorithm,
    tail: Callable[[], bytes] | None,
    capability: Capability,
    delegating: bool,
) -> None:
    bench = Bench()
    data = b"" if tail is None else tail()
    made = header(0x1234, algorithm, delegated=5 if delegating else None, domains=6, capabilities=9) + data
    bench.limited(capabilities=ALL_CAPABILITIES & ~capability).fails(ErrorCode.INSUFFICIENT_PERMISSIONS, command, made)
    bench.fails(ErrorCode.WRONG_LENGTH, command, made[:50])
    if kind is not ObjectType.HMAC_KEY or not data:
        bench.fails(ErrorCode.WRONG_LENGTH, command, made + b"\x00")
    unsuited = header(0, Algorithm.OPAQUE_DATA, delegated=5 if delegating else None) + data
    bench.fails(ErrorCode.INVALID_DATA, command, unsuited)
    bench.device.options.disabled = {algorithm}
    bench.fails(ErrorCode.ALGORITHM_DISABLED, command, made)
    bench.device.options.disabled = set()
    assert bench.limited(capabilities=capability).call(command, made) == u16(0x1234)
    one = bench.find(kind, 0x1234)
    assert (one.label.rstrip(b"\0"), one.domains, one.capabilities, one.algorithm) == (b"made", 6, 9, algorithm)
    assert one.delegated == (5 if delegating else 0)
    assert one.origin == (2 if command.name.startswith("PUT") else 1)
    assert one.length == LENGTHS[kind, algorithm]
    bench.fails(ErrorCode.OBJECT_EXISTS, command, made)


MINE = sorted(
    {
        **asymmetric.COMMANDS, **attestation.COMMANDS, **hmac_keys.COMMANDS, **otp.COMMANDS,
        **rsa_wrap.COMMANDS, **ssh.COMMANDS, **symmetric.COMMANDS, **wrap.COMMANDS,
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def stocked() -> Bench:
    """One object of each kind under id 0, which no object has: so short requests find them too."""
    bench = Bench()
    for kind, algorithm, material in (
        (ASYMMETRIC, Algorithm.RSA_2048, RSA),
        (ObjectType.WRAP_KEY, Algorithm.AES256_CCM_WRAP, AES),
        (ObjectType.PUBLIC_WRAP_KEY, Algorithm.RSA_2048, rsa.modulus(RSA)),
        (ObjectType.HMAC_KEY, Algorithm.HMAC_SHA256, HMAC),
        (ObjectType.SYMMETRIC_KEY, Algorithm.AES256, AES),
        (ObjectType.OTP_AEAD_KEY, Algorithm.AES128_YUBICO_OTP, OTP),
        (ObjectType.TEMPLATE, Algorithm.TEMPLATE_SSH, b"\x01\x00\x01\x09"),
    ):
        bench.keep(kind, 0, algorithm, material, delegated=ALL_CAPABILITIES)
    return bench


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(MINE), st.binary(max_size=90), st.booleans())
def test_any_bytes_are_answered_or_refused(stocked: Bench, command: Command, data: bytes, keyed: bool) -> None:
    assert command in TABLE
    with contextlib.suppress(DeviceError):
        stocked.call(command, (bytes(2) if keyed else b"") + data)


NOBODY = 0xFFFF
LOGGED = [
    # command, first bytes of the request, reply, the two keys that the audit log names
    *((command, u16(0, 7), u16(7), 7, NOBODY) for command in MINE if command.name.startswith(("PUT", "GENERATE"))
      and command is not Command.PUT_RSA_WRAPPED_KEY),
    *((use.command, u16(7, 8), b"reply", 7, NOBODY) for use in USES if use.command is not Command.REWRAP_OTP_AEAD),
    (Command.GET_PUBLIC_KEY, u16(7), b"reply", 7, NOBODY),
    (Command.REWRAP_OTP_AEAD, u16(7, 8), b"reply", 7, 8),
    (Command.SIGN_SSH_CERTIFICATE, u16(7, 8), b"reply", 7, 8),
    (Command.SIGN_ATTESTATION_CERTIFICATE, u16(7, 8), b"reply", 7, 8),
    (Command.EXPORT_WRAPPED, u16(7) + b"\x03" + u16(8), b"reply", 7, 8),
    (Command.EXPORT_RSA_WRAPPED, u16(7) + b"\x03" + u16(8), b"reply", 7, 8),
    (Command.GET_RSA_WRAPPED_KEY, u16(7) + b"\x03" + u16(8), b"reply", 7, 8),
    (Command.IMPORT_WRAPPED, u16(7), b"\x03" + u16(8), 7, 8),
    (Command.IMPORT_RSA_WRAPPED, u16(7), b"\x03" + u16(8), 7, 8),
    (Command.PUT_RSA_WRAPPED_KEY, u16(7) + b"\x03" + u16(0), b"\x03" + u16(8), 7, 8),
]  # fmt: skip


@pytest.mark.parametrize(("command", "request_", "reply", "target", "second"), LOGGED)
def test_the_audit_log_names_the_keys(
    command: Command, request_: bytes, reply: bytes, target: int, second: int
) -> None:
    spec = TABLE[command]
    assert (spec.target(request_, reply), spec.second(request_, reply)) == (target, second)
    if reply != b"reply":  # what was not made or brought in has no id
        assert NOBODY in {spec.target(request_, None), spec.second(request_, None)}
    assert not spec.in_clear


def test_the_log_of_every_command_with_keys_is_tested() -> None:
    assert {row[0] for row in LOGGED} == set(MINE)
