import base64
import hashlib
from dataclasses import dataclass, replace

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric import rsa as reference
from hypothesis import given
from hypothesis import strategies as st

from tests.support.emulated_device import Bench, key_of, refused, u16
from yubihsm_emulator.codes import ALL_CAPABILITIES, Algorithm, Capability, Command, ObjectType
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import rsa, ssh

CA, TEMPLATE = 0x0A, 0x0B
NOW = 1_700_000_000
HOUR = 3600
KEY = key_of(Algorithm.RSA_2048)
CLOCK = reference.generate_private_key(65537, 2048)
"""Whose key vouches for the time."""
MODULUS = CLOCK.public_key().public_numbers().n.to_bytes(256, "big")
USER = reference.generate_private_key(65537, 2048)


def certificate(
    *, after: int = NOW, before: int = NOW + HOUR, principals: tuple[bytes, ...] = (b"alice",), ca: bytes = KEY
) -> bytes:
    """An OpenSSH certificate without its signature, made by a library and cut."""
    builder = (
        serialization.SSHCertificateBuilder()
        .public_key(USER.public_key())
        .serial(7)
        .type(serialization.SSHCertificateType.USER)
        .key_id(b"alice@host")
        .valid_after(after)
        .valid_before(before)
        .add_extension(b"permit-pty", b"")
    )
    builder = builder.valid_principals(list(principals)) if principals else builder.valid_for_all_principals()
    text = builder.sign(rsa.private_key(ca)).public_bytes()
    whole = serialization.load_ssh_public_identity(text)
    assert isinstance(whole, serialization.SSHCertificate)
    blob = base64.b64decode(text.split()[1])
    # string(string "rsa-sha2-512" | string signature [256])
    return blob[: -(4 + 4 + len("rsa-sha2-512") + 4 + 256)]


SAMPLE = certificate()


@dataclass(frozen=True)
class Rules:
    algorithm: int = Algorithm.RSA_2048
    modulus: bytes = MODULUS
    signers: tuple[int, ...] = (CA,)
    earlier: int = 60
    later: int = HOUR
    blocked: bytes = b"root\x00admin\x00"

    def pack(self) -> bytes:
        fields = (
            (1, bytes((self.algorithm,))),
            (2, self.modulus),
            (3, u16(*self.signers)),
            (4, self.earlier.to_bytes(4, "big")),
            (5, self.later.to_bytes(4, "big")),
            (6, self.blocked),
        )
        return b"".join(bytes((tag,)) + u16(len(value)) + value for tag, value in fields)


def bench_with(template: bytes) -> Bench:
    bench = Bench()
    bench.keypair(CA, Algorithm.RSA_2048)
    bench.keep(ObjectType.TEMPLATE, TEMPLATE, Algorithm.TEMPLATE_SSH, template)
    return bench


def asked(request: bytes, *, now: int = NOW, algorithm: int = Algorithm.RSA_PKCS1_SHA256) -> bytes:
    said = hashlib.sha256(request).digest() + now.to_bytes(4, "big")
    vouched = CLOCK.sign(said, padding.PKCS1v15(), hashes.SHA256())
    return u16(CA, TEMPLATE) + bytes((algorithm,)) + now.to_bytes(4, "big") + vouched + request


@pytest.mark.parametrize(
    ("algorithm", "hashed"),
    [
        (Algorithm.RSA_PKCS1_SHA1, hashes.SHA1()),
        (Algorithm.RSA_PKCS1_SHA256, hashes.SHA256()),
        (Algorithm.RSA_PKCS1_SHA384, hashes.SHA384()),
        (Algorithm.RSA_PKCS1_SHA512, hashes.SHA512()),
    ],
)
def test_the_signature_completes_the_certificate(algorithm: Algorithm, hashed: hashes.HashAlgorithm) -> None:
    request = certificate()
    answer = bench_with(Rules().pack()).call(Command.SIGN_SSH_CERTIFICATE, asked(request, algorithm=algorithm))
    assert answer[:19] == (4 + 7 + 4 + 256).to_bytes(4, "big") + b"\x00\x00\x00\x07ssh-rsa" + (256).to_bytes(4, "big")
    public = rsa.public_key(rsa.modulus(KEY))
    public.verify(answer[19:], request, padding.PKCS1v15(), hashed)


@pytest.mark.parametrize(
    ("rules", "request_", "fits"),
    [
        (Rules(), certificate(), True),
        (Rules(signers=(1, 2, CA)), certificate(), True),
        (Rules(signers=(1, 2)), certificate(), False),
        (Rules(signers=()), certificate(), False),
        (Rules(), certificate(after=NOW - 61), False),
        (Rules(), certificate(after=NOW - 60), True),
        (Rules(), certificate(after=NOW + 60), True),
        (Rules(earlier=0), certificate(after=0), True),
        (Rules(), certificate(before=NOW + HOUR + 1), False),
        (Rules(), certificate(before=2**64 - 1), False),
        (Rules(later=0xFFFF_FFFF), certificate(before=2**64 - 1), True),
        (Rules(later=0xFFFF_FFFE), certificate(before=2**64 - 1), False),
        (Rules(), certificate(principals=(b"alice", b"root")), False),
        (Rules(), certificate(principals=(b"alice", b"roo")), True),
        (Rules(), certificate(principals=()), False),
        (Rules(blocked=b""), certificate(principals=()), True),
    ],
)  # fmt: skip
def test_a_template_is_kept_to(rules: Rules, request_: bytes, fits: bool) -> None:
    bench = bench_with(rules.pack())
    if fits:
        assert bench.call(Command.SIGN_SSH_CERTIFICATE, asked(request_))
    else:
        bench.fails(ErrorCode.SSH_CA_CONSTRAINT_VIOLATION, Command.SIGN_SSH_CERTIFICATE, asked(request_))


def test_the_time_must_be_vouched_for() -> None:
    bench = bench_with(Rules().pack())
    right = asked(certificate())
    for position in (8, 9, 9 + 255, len(right) - 300):  # time, signature, request
        wrong = bytearray(right)
        wrong[position] ^= 1
        bench.fails(ErrorCode.SSH_CA_CONSTRAINT_VIOLATION, Command.SIGN_SSH_CERTIFICATE, bytes(wrong))


def test_what_is_no_template_no_request_or_no_rsa_is_invalid_data() -> None:
    request = certificate()
    for template in (
        b"\x01",
        b"random bytes",
        b"\x07\x00\x00",
        replace(Rules(), algorithm=Algorithm.EC_P256).pack(),
        replace(Rules(), modulus=MODULUS[1:]).pack(),
        Rules().pack()[:5],
        b"",
    ):
        if template:
            bench_with(template).fails(ErrorCode.INVALID_DATA, Command.SIGN_SSH_CERTIFICATE, asked(request))
    bench = bench_with(Rules().pack())
    for wrong in (b"", request[:-1], request + b"\x00", request[1:], request.replace(b"ssh-rsa-cert", b"ssh-dsa-cert")):
        bench.fails(ErrorCode.INVALID_DATA, Command.SIGN_SSH_CERTIFICATE, asked(wrong))
    bench.fails(
        ErrorCode.INVALID_DATA, Command.SIGN_SSH_CERTIFICATE, asked(request, algorithm=Algorithm.RSA_PSS_SHA256)
    )
    bench.delete(ObjectType.ASYMMETRIC_KEY, CA)
    bench.fails(ErrorCode.OBJECT_NOT_FOUND, Command.SIGN_SSH_CERTIFICATE, asked(request))
    bench.keypair(CA, Algorithm.EC_P256)
    bench.fails(ErrorCode.INVALID_DATA, Command.SIGN_SSH_CERTIFICATE, asked(request))


def test_it_needs_its_capability_and_a_template() -> None:
    bench = bench_with(Rules().pack())
    right = asked(certificate())
    without = ALL_CAPABILITIES & ~Capability.SIGN_SSH_CERTIFICATE
    bench.limited(capabilities=without).fails(ErrorCode.INSUFFICIENT_PERMISSIONS, Command.SIGN_SSH_CERTIFICATE, right)
    bench.delete(ObjectType.ASYMMETRIC_KEY, CA)
    bench.keypair(CA, Algorithm.RSA_2048, without)
    bench.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, Command.SIGN_SSH_CERTIFICATE, right)
    bench.delete(ObjectType.ASYMMETRIC_KEY, CA)
    bench.keypair(CA, Algorithm.RSA_2048)
    for algorithm in (Algorithm.TEMPLATE_SSH, Algorithm.RSA_PKCS1_SHA256, Algorithm.RSA_2048):
        bench.device.options.disabled = {algorithm}
        bench.fails(ErrorCode.ALGORITHM_DISABLED, Command.SIGN_SSH_CERTIFICATE, right)
    bench.device.options.disabled = set()
    bench.delete(ObjectType.TEMPLATE, TEMPLATE)
    bench.fails(ErrorCode.OBJECT_NOT_FOUND, Command.SIGN_SSH_CERTIFICATE, right)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_template_or_invalid_data(data: bytes) -> None:
    with pytest.raises(DeviceError) as caught:  # too short for a modulus
        ssh.Template.parse(data)
    assert caught.value.code is ErrorCode.INVALID_DATA


@given(st.data())
def test_a_request_cut_anywhere_is_invalid_data(data: st.DataObject) -> None:
    request = SAMPLE
    size = data.draw(st.integers(0, len(request) - 1))
    refused(ErrorCode.INVALID_DATA, lambda: ssh.Request.parse(request[:size]))
    assert ssh.Request.parse(request) == ssh.Request(frozenset({b"alice"}), NOW, NOW + HOUR)
