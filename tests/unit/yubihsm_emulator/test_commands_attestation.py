import contextlib
import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from yubihsm.objects import AttestationExtensions

from tests.support.emulated_device import SERIAL, Bench, key_of, u16
from yubihsm_emulator.codes import ALL_CAPABILITIES, Algorithm, Capability, Command, ObjectType
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import attestation

SIGNER, ATTESTED = 0x51, 0x52
ALGORITHMS = [
    Algorithm.RSA_2048,
    Algorithm.EC_P224,
    Algorithm.EC_P256,
    Algorithm.EC_P384,
    Algorithm.EC_P521,
    Algorithm.EC_K256,
    Algorithm.EC_BP256,
    Algorithm.EC_BP384,
    Algorithm.EC_BP512,
]
BEGIN = dt.datetime(2024, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
END = dt.datetime(2034, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
SUBJECT = x509.Name(
    [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Ümläut"), x509.NameAttribute(NameOID.COMMON_NAME, "Template")]
)


def template(algorithm: Algorithm) -> bytes:
    key = attestation.private_key(algorithm, key_of(algorithm))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Somebody else")])
    builder = x509.CertificateBuilder(issuer, SUBJECT, key.public_key(), 99, BEGIN, END)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


P256_TEMPLATE = template(Algorithm.EC_P256)


def bench_with(signer: Algorithm, attested: Algorithm = Algorithm.EC_P256) -> Bench:
    bench = Bench()
    bench.keypair(SIGNER, signer)
    bench.keypair(ATTESTED, attested, 0x0123_4567_89AB_CDEF)
    bench.keep(ObjectType.OPAQUE, SIGNER, Algorithm.OPAQUE_X509_CERTIFICATE, template(signer))
    return bench


def verified(certificate: x509.Certificate, public: object) -> x509.Certificate:
    """The certificate, if this key signed it with SHA-256."""
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    if isinstance(public, rsa.RSAPublicKey):
        public.verify(certificate.signature, certificate.tbs_certificate_bytes, padding.PKCS1v15(), hashes.SHA256())
    else:
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    return certificate


@pytest.mark.parametrize("attested", ALGORITHMS, ids=lambda one: one.name)
@pytest.mark.parametrize("signer", ALGORITHMS, ids=lambda one: one.name)
def test_any_pair_attests_any_pair(signer: Algorithm, attested: Algorithm) -> None:
    bench = bench_with(signer, attested)
    answer = bench.call(Command.SIGN_ATTESTATION_CERTIFICATE, u16(ATTESTED, SIGNER))
    public = attestation.private_key(signer, key_of(signer)).public_key()
    certificate = verified(x509.load_der_x509_certificate(answer), public)
    assert certificate.public_key() == attestation.private_key(attested, key_of(attested)).public_key()
    assert certificate.issuer == SUBJECT
    assert certificate.subject.rfc4514_string() == "CN=YubiHSM Attestation id 0x0052"
    assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (BEGIN, END)
    told = AttestationExtensions.parse(certificate)
    assert (told.firmware_version, told.serial) == ((2, 4, 1), SERIAL)
    assert (told.origin, told.domains, told.capabilities) == (2, 0xFFFF, 0x0123_4567_89AB_CDEF)
    assert (told.object_id, told.label) == (ATTESTED, "kept")


def test_extensions_are_der_of_their_kinds() -> None:
    bench = bench_with(Algorithm.EC_P256)
    certificate = x509.load_der_x509_certificate(
        bench.call(Command.SIGN_ATTESTATION_CERTIFICATE, u16(ATTESTED, SIGNER))
    )
    values = {
        one.oid.dotted_string.rpartition(".")[2]: one.value.public_bytes().hex() for one in certificate.extensions
    }
    assert values == {
        "1": "0403020401",
        "2": "0203733431",
        "3": "03020002",
        "4": "030300ffff",
        "5": "0309000123456789abcdef",
        "6": "020152",
        "9": "0c046b657074",
    }
    assert len(certificate.serial_number.to_bytes(16, "big")) == 16


def test_a_key_may_attest_itself() -> None:
    bench = bench_with(Algorithm.EC_P384)
    answer = bench.call(Command.SIGN_ATTESTATION_CERTIFICATE, u16(SIGNER, SIGNER))
    certificate = x509.load_der_x509_certificate(answer)
    verified(certificate, certificate.public_key())


def test_the_built_in_key_attests_and_shows_its_certificate() -> None:
    bench = bench_with(Algorithm.EC_P256)
    encoded = bench.call(Command.GET_OPAQUE, u16(0))
    assert bench.call(Command.GET_OPAQUE, u16(0)) == encoded
    own = x509.load_der_x509_certificate(encoded)
    verified(own, own.public_key())
    answer = bench.call(Command.SIGN_ATTESTATION_CERTIFICATE, u16(ATTESTED, 0))
    certificate = verified(x509.load_der_x509_certificate(answer), own.public_key())
    assert certificate.issuer == own.subject
    for one in (own, certificate):
        found = {extension.oid.dotted_string: extension.value.public_bytes() for extension in one.extensions}
        assert found["1.3.6.1.4.1.41482.4.1"] == b"\x04\x03\x02\x04\x01"
        assert found["1.3.6.1.4.1.41482.4.2"] == b"\x02\x03" + SERIAL.to_bytes(3, "big")
    assert Bench().call(Command.GET_OPAQUE, u16(0)) != encoded


def test_what_attestation_wants() -> None:
    bench = bench_with(Algorithm.EC_P256)
    right, command = u16(ATTESTED, SIGNER), Command.SIGN_ATTESTATION_CERTIFICATE
    without = ALL_CAPABILITIES & ~Capability.SIGN_ATTESTATION_CERTIFICATE
    bench.limited(capabilities=without).fails(ErrorCode.INSUFFICIENT_PERMISSIONS, command, right)
    bench.keypair(0x64, Algorithm.EC_P256, without)
    bench.fails(ErrorCode.INSUFFICIENT_PERMISSIONS, command, u16(ATTESTED, 0x64))
    bench.fails(ErrorCode.OBJECT_NOT_FOUND, command, u16(0x60, SIGNER))
    bench.fails(ErrorCode.OBJECT_NOT_FOUND, command, u16(ATTESTED, 0x60))
    bench.fails(ErrorCode.WRONG_LENGTH, command, right[:3])
    bench.fails(ErrorCode.WRONG_LENGTH, command, right + b"\x00")
    bench.keypair(0x61, Algorithm.EC_ED25519)
    bench.fails(ErrorCode.INVALID_DATA, command, u16(0x61, SIGNER))
    bench.fails(ErrorCode.INVALID_DATA, command, u16(ATTESTED, 0x61))
    bench.keypair(0x62, Algorithm.EC_P256)
    bench.fails(ErrorCode.OBJECT_NOT_FOUND, command, u16(ATTESTED, 0x62))
    bench.keep(ObjectType.OPAQUE, 0x62, Algorithm.OPAQUE_DATA, template(Algorithm.EC_P256))
    bench.fails(ErrorCode.INVALID_DATA, command, u16(ATTESTED, 0x62))
    bench.keypair(0x63, Algorithm.EC_P256)
    bench.keep(ObjectType.OPAQUE, 0x63, Algorithm.OPAQUE_X509_CERTIFICATE, b"no certificate")
    bench.fails(ErrorCode.INVALID_DATA, command, u16(ATTESTED, 0x63))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_template_with_a_changed_byte_is_followed_or_refused(data: st.DataObject) -> None:
    encoded = bytearray(P256_TEMPLATE)
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    signer = attestation.private_key(Algorithm.EC_P256, key_of(Algorithm.EC_P256))
    claim = attestation.Claim(1, 1, 1, 0, bytes(40), signer.public_key())
    with contextlib.suppress(DeviceError):
        assert attestation.attest(claim, signer, bytes(encoded), b"\x02\x04\x01", SERIAL)


def test_a_label_that_fills_its_field_and_one_that_is_no_text() -> None:
    bench = bench_with(Algorithm.EC_P256)
    for object_id, label in ((0x70, b"l" * 40), (0x71, b"\xff\xfe")):
        claim = attestation.Claim(
            object_id,
            1,
            1,
            0,
            label.ljust(40, b"\0"),
            attestation.device_key(bench.device.attestation_key).public_key(),
        )
        signer = attestation.private_key(Algorithm.EC_P256, key_of(Algorithm.EC_P256))
        made = x509.load_der_x509_certificate(
            attestation.attest(claim, signer, template(Algorithm.EC_P256), b"\x02\x04\x01", 0xFFFF_FFFF)
        )
        values = {one.oid.dotted_string.rpartition(".")[2]: one.value.public_bytes() for one in made.extensions}
        assert values["9"] == bytes((0x0C, len(label))) + label
        assert values["2"] == b"\x02\x05\x00\xff\xff\xff\xff"
