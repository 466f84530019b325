"""Attestation: certificates in which a device says how it holds a key.

Extensions 1.3.6.1.4.1.41482.4.x: .1 firmware version, .2 serial number; of an attested key also .3 origin,
.4 domains, .5 capabilities, .6 id, .9 label.  Their values are DER with lengths of one byte.
"""

import datetime as dt
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import ec as ec_keys
from yubihsm_emulator.material import rsa as rsa_keys

SignerKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_ARC: Final = "1.3.6.1.4.1.41482.4."
_INTEGER, _BITS, _OCTETS, _TEXT = 0x02, 0x03, 0x04, 0x0C
_SERIAL_SIZE: Final = 16
_DER: Final = serialization.Encoding.DER
_BEGIN: Final = dt.datetime(2017, 1, 1, tzinfo=dt.UTC)
_END: Final = dt.datetime(2071, 10, 5, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Claim:
    """What is said of an attested key."""

    object_id: int
    origin: int
    domains: int
    capabilities: int
    label: bytes
    public_key: PublicKey


def private_key(algorithm: int, material: bytes) -> SignerKey:
    """A key of RSA or one of the eight curves, for signing; INVALID DATA for any other."""
    if rsa_keys.is_rsa(algorithm):
        return rsa_keys.private_key(material)
    ec_keys.coordinate_size(algorithm)
    return ec_keys.private_key(algorithm, material)


def attest(claim: Claim, signer: SignerKey, template: bytes, version: bytes, serial: int) -> bytes:
    """DER of a certificate for `claim`, issued by the subject of the DER certificate `template` with its dates.

    INVALID DATA if `template` is no certificate that can be followed.
    """
    try:
        like = x509.load_der_x509_certificate(template)
        name = _name(f"YubiHSM Attestation id 0x{claim.object_id:04x}")
        builder = _builder(name, like.subject, like.not_valid_before_utc, like.not_valid_after_utc, version, serial)
        for arc, kind, value in (
            (3, _BITS, claim.origin.to_bytes(1, "big")),
            (4, _BITS, claim.domains.to_bytes(2, "big")),
            (5, _BITS, claim.capabilities.to_bytes(8, "big")),
            (6, _INTEGER, _integer(claim.object_id)),
            (9, _TEXT, claim.label.rstrip(b"\x00")),
        ):
            builder = _extended(builder, arc, kind, value)
        number = int.from_bytes(os.urandom(_SERIAL_SIZE), "big") >> 1 | 1 << (8 * _SERIAL_SIZE - 2)
        certificate = builder.serial_number(number).public_key(claim.public_key).sign(signer, hashes.SHA256())
    except Exception:  # noqa: BLE001 - the parser has many exceptions for bytes it does not understand
        raise DeviceError(ErrorCode.INVALID_DATA) from None
    return certificate.public_bytes(_DER)


@lru_cache(maxsize=16)
def device_certificate(scalar: bytes, version: bytes, serial: int) -> bytes:
    """DER of the certificate of a device's built-in attestation key (a P-256 scalar): the same for the same device.

    It is signed by itself: nobody answers for an emulator.
    """
    key = device_key(scalar)
    name = _name(f"YubiHSM Emulator Attestation ({serial})")
    builder = _builder(name, name, _BEGIN, _END, version, serial).serial_number(serial + 1)
    builder = builder.public_key(key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(_DER)


@lru_cache(maxsize=16)
def device_key(scalar: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    begin: dt.datetime,
    end: dt.datetime,
    version: bytes,
    serial: int,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject).not_valid_before(begin).not_valid_after(end)
    return _extended(_extended(builder, 1, _OCTETS, version), 2, _INTEGER, _integer(serial))


def _extended(builder: x509.CertificateBuilder, arc: int, kind: int, value: bytes) -> x509.CertificateBuilder:
    content = (b"\x00" if kind == _BITS else b"") + value
    encoded = bytes((kind, len(content))) + content
    return builder.add_extension(
        x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{_ARC}{arc}"), encoded), critical=False
    )


def _integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big")


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
