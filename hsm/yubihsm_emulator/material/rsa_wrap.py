"""RSA-AES key wrap (CKM_RSA_AES_KEY_WRAP of PKCS#11 v2.40).

blob
+--------------------------------------+------------------------------------------------+
| fresh AES key under RSA-OAEP [n]     | plaintext under that key: AES-KWP, RFC 5649    |
+--------------------------------------+------------------------------------------------+
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, keywrap

from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import aes, rsa


@dataclass(frozen=True, slots=True)
class Padding:
    """How the AES key is padded: the digest of OAEP's label (its length names the hash) and the hash of MGF1."""

    label_digest: bytes
    mgf: hashes.HashAlgorithm


def seal(modulus: bytes, plaintext: bytes, aes_algorithm: int, padding: Padding) -> bytes:
    """A blob for the holder of the private key, with a fresh key of aes128, aes192 or aes256 (else INVALID DATA)."""
    key = aes.generate(aes_algorithm)
    sealed_key = rsa.encrypt_oaep(modulus, key, padding.label_digest, padding.mgf)
    return sealed_key + keywrap.aes_key_wrap_with_padding(key, plaintext)


def open_blob(material: bytes, blob: bytes, padding: Padding) -> bytes:
    """The plaintext; INVALID DATA if anything is wrong with padding, key or check value."""
    size = len(rsa.modulus(material))
    if len(blob) <= size:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    key = rsa.decrypt_oaep(material, blob[:size], padding.label_digest, padding.mgf)
    try:
        return keywrap.aes_key_unwrap_with_padding(key, blob[size:])
    except (keywrap.InvalidUnwrap, ValueError):
        raise DeviceError(ErrorCode.INVALID_DATA) from None
