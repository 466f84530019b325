"""Public keys as SubjectPublicKeyInfo DER (RFC 5280, 5480, 8017, 8410), from what a token tells of them."""

from __future__ import annotations

from typing import Final

from openk_hsm.errors import HsmError
from openk_hsm.seam import Algorithm

OID_EC_PUBLIC_KEY: Final = bytes.fromhex("06072a8648ce3d0201")
OID_RSA: Final = bytes.fromhex("06092a864886f70d010101")
EC_PARAMS: Final[dict[Algorithm, bytes]] = {
    Algorithm.P256: bytes.fromhex("06082a8648ce3d030107"),
    Algorithm.P384: bytes.fromhex("06052b81040022"),
    Algorithm.P521: bytes.fromhex("06052b81040023"),
    Algorithm.ED25519: bytes.fromhex("06032b6570"),
    Algorithm.X25519: bytes.fromhex("06032b656e"),
}
"""CKA_EC_PARAMS as namedCurve (PKCS#11 v3.1, section 6.3.3), also what the algorithm identifiers hold."""

_POINT_BYTES: Final[dict[Algorithm, int]] = {
    Algorithm.P256: 65,
    Algorithm.P384: 97,
    Algorithm.P521: 133,
    Algorithm.ED25519: 32,
    Algorithm.X25519: 32,
}


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _integer(big_endian: bytes) -> bytes:
    content = big_endian.lstrip(b"\x00") or b"\x00"
    return _tlv(0x02, b"\x00" + content if content[0] & 0x80 else content)


def _spki(identifier: bytes, key: bytes) -> bytes:
    return _tlv(0x30, _tlv(0x30, identifier) + _tlv(0x03, b"\x00" + key))


def point_of(algorithm: Algorithm, attribute: bytes) -> bytes:
    """The point in CKA_EC_POINT: a DER OCTET STRING by the standard, bare on some tokens. Raises HsmError."""
    size = _POINT_BYTES[algorithm]
    wrapped = _tlv(0x04, b"\x00" * size)
    prefix = wrapped[: len(wrapped) - size]
    if len(attribute) == len(wrapped) and attribute.startswith(prefix):
        return attribute[len(prefix) :]
    if len(attribute) == size:
        return attribute
    raise HsmError("the token gave a public point of an unknown form")


def curve_spki(algorithm: Algorithm, attribute: bytes) -> bytes:
    """From CKA_EC_POINT."""
    point = point_of(algorithm, attribute)
    parameters = EC_PARAMS[algorithm]
    if algorithm in (Algorithm.ED25519, Algorithm.X25519):
        return _spki(parameters, point)
    return _spki(OID_EC_PUBLIC_KEY + parameters, point)


def rsa_spki(modulus: bytes, exponent: bytes) -> bytes:
    """From CKA_MODULUS and CKA_PUBLIC_EXPONENT (big-endian)."""
    return _spki(OID_RSA + b"\x05\x00", _tlv(0x30, _integer(modulus) + _integer(exponent)))
