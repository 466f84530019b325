"""RSA keys: 2048, 3072 and 4096 bits, public exponent 65537.

material of a private key, 7n/2 bytes (n = bytes of the modulus; all parts but the last have n/2)
+---+---+---------------+---------------+--------------+-------------+
| p | q | d mod (p - 1) | d mod (q - 1) | q^-1 mod p   | modulus (n) |
+---+---+---------------+---------------+--------------+-------------+
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InternalError, InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed

from yubihsm_emulator.codes import Algorithm
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import digests, implicit_rejection, oaep
from yubihsm_emulator.material.modular import power

EXPONENT: Final = 65537
_SIZES: Final[dict[int, int]] = {Algorithm.RSA_2048: 256, Algorithm.RSA_3072: 384, Algorithm.RSA_4096: 512}
_PKCS1_OVERHEAD: Final = 11
_SHA256: Final = hashes.SHA256()


@dataclass(frozen=True, slots=True)
class _Key:
    p: int
    q: int
    dp: int
    dq: int
    qinv: int
    size: int
    rejection_secret: bytes
    handle: rsa.RSAPrivateKey

    def raise_to_private(self, number: int) -> int:
        """`number` ** d mod n by the Chinese remainder theorem (RFC 8017 section 5.1.2)."""
        left = power(number % self.p, self.dp, self.p)
        right = power(number % self.q, self.dq, self.q)
        return right + self.q * ((left - right) * self.qinv % self.p)


def is_rsa(algorithm: int) -> bool:
    return algorithm in _SIZES


def modulus_size(algorithm: int) -> int:
    """Bytes of the modulus of an RSA algorithm; INVALID DATA for any other."""
    size = _SIZES.get(algorithm)
    if size is None:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return size


def generate(algorithm: int) -> bytes:
    """Material of a new key."""
    return material_of(rsa.generate_private_key(EXPONENT, modulus_size(algorithm) * 8))


def from_primes(algorithm: int, primes: bytes) -> bytes:
    """Material of the key with these primes (p | q).

    WRONG LENGTH if they have not n bytes together; INVALID DATA if they make no key of that size: not two
    different primes, a modulus that is too short, or 65537 divides p - 1 or q - 1.
    """
    size = modulus_size(algorithm)
    if len(primes) != size:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    half = size // 2
    p, q = int.from_bytes(primes[:half], "big"), int.from_bytes(primes[half:], "big")
    if (p * q).bit_length() != 8 * size or not p & q & 1:
        raise DeviceError(ErrorCode.INVALID_DATA)
    material = _assembled(p, q, size)
    if not _works(_loaded(material).handle):
        raise DeviceError(ErrorCode.INVALID_DATA)
    return material


def from_body(algorithm: int, body: bytes) -> bytes:
    """`body` itself if it is the material of a key of that algorithm, else INVALID DATA."""
    size = modulus_size(algorithm)
    if len(body) != 7 * size // 2:
        raise DeviceError(ErrorCode.INVALID_DATA)
    if from_primes(algorithm, body[:size]) != body:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return body


def from_modulus(algorithm: int, modulus_bytes: bytes) -> bytes:
    """`modulus_bytes` itself (the material of a public wrap key) if a key of that algorithm can have it.

    Else INVALID DATA: another length, even, or a first bit that is not set.
    """
    if len(modulus_bytes) != modulus_size(algorithm) or not (modulus_bytes[0] & 0x80 and modulus_bytes[-1] & 1):
        raise DeviceError(ErrorCode.INVALID_DATA)
    return modulus_bytes


def material_of(key: rsa.RSAPrivateKey) -> bytes:
    """Material of a key of the `cryptography` package; INVALID DATA for another public exponent."""
    numbers = key.private_numbers()
    if numbers.public_numbers.e != EXPONENT:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return _assembled(numbers.p, numbers.q, key.key_size // 8)


def modulus(material: bytes) -> bytes:
    """The modulus at the end of a private key's material."""
    return material[-(len(material) * 2 // 7) :]


def public_key(modulus_bytes: bytes) -> rsa.RSAPublicKey:
    """The public key with this modulus; INVALID DATA if no RSA key can have it."""
    try:
        return rsa.RSAPublicNumbers(EXPONENT, int.from_bytes(modulus_bytes, "big")).public_key()
    except ValueError:
        raise DeviceError(ErrorCode.INVALID_DATA) from None


def private_key(material: bytes) -> rsa.RSAPrivateKey:
    return _loaded(material).handle


def to_pkcs8(material: bytes) -> bytes:
    """PKCS#8 DER of the key."""
    return _loaded(material).handle.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def sign_pkcs1(material: bytes, digest: bytes) -> bytes:
    """RSASSA-PKCS1-v1_5 over a bare digest (20, 32, 48 or 64 bytes) or over a finished DigestInfo.

    INVALID DATA if it is neither or too long.
    """
    key = _loaded(material)
    if digests.is_digest_length(len(digest)):
        return key.handle.sign(digest, padding.PKCS1v15(), Prehashed(digests.hash_of_length(len(digest))))
    if len(digest) < 2 or digest[0] != 0x30 or digest[1] != len(digest) - 2 or digest[1] > 0x7F:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return key.handle.sign(digest, padding.PKCS1v15(), NoDigestInfo())


def sign_pss(material: bytes, digest: bytes, salt_length: int, mgf: hashes.HashAlgorithm) -> bytes:
    """RSASSA-PSS over a digest whose length (20, 32, 48, 64, else WRONG LENGTH) names its hash.

    INVALID DATA if the salt does not fit.
    """
    key = _loaded(material)
    hashed = digests.hash_of_length(len(digest))
    if salt_length > key.size - len(digest) - 2:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return key.handle.sign(digest, padding.PSS(padding.MGF1(mgf), salt_length), Prehashed(hashed))


def decrypt_pkcs1(material: bytes, ciphertext: bytes) -> bytes:
    """RSAES-PKCS1-v1_5.

    WRONG LENGTH if the ciphertext is not as long as the modulus, INVALID DATA for wrong padding.
    """
    key = _loaded(material)
    if len(ciphertext) != key.size:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    try:
        message = key.handle.decrypt(ciphertext, padding.PKCS1v15())
    except ValueError:
        raise DeviceError(ErrorCode.INVALID_DATA) from None
    if message != implicit_rejection.synthetic(key.rejection_secret, ciphertext):
        return message
    encoded = _raw(key, ciphertext)
    end = encoded.find(b"\x00", 2)
    if encoded[:2] != b"\x00\x02" or end < _PKCS1_OVERHEAD - 1:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return encoded[end + 1 :]


def decrypt_oaep(material: bytes, ciphertext: bytes, label_digest: bytes, mgf: hashes.HashAlgorithm) -> bytes:
    """RSAES-OAEP with the label given as its digest, whose length (20, 32, 48, 64) names the hash.

    WRONG LENGTH for another digest or a ciphertext not as long as the modulus; INVALID DATA for wrong padding.
    """
    key = _loaded(material)
    hashed = digests.hash_of_length(len(label_digest))
    if label_digest == digests.digest(hashed, b"") and len(ciphertext) == key.size:
        # Nearly all have no label: then the library does all of it.
        try:
            return key.handle.decrypt(ciphertext, padding.OAEP(padding.MGF1(mgf), hashed, None))
        except ValueError:
            raise DeviceError(ErrorCode.INVALID_DATA) from None
    return oaep.decode(_raw(key, ciphertext), label_digest, mgf)


def encrypt_oaep(modulus_bytes: bytes, message: bytes, label_digest: bytes, mgf: hashes.HashAlgorithm) -> bytes:
    """RSAES-OAEP to a modulus; errors as in `decrypt_oaep`, INVALID DATA if `message` is too long."""
    digests.hash_of_length(len(label_digest))
    size = len(modulus_bytes)
    encoded = oaep.encode(message, size, label_digest, mgf)
    number = pow(int.from_bytes(encoded, "big"), EXPONENT, int.from_bytes(modulus_bytes, "big"))
    return number.to_bytes(size, "big")


def _raw(key: _Key, ciphertext: bytes) -> bytes:
    if len(ciphertext) != key.size:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    number = int.from_bytes(ciphertext, "big")
    if number >= key.p * key.q:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return key.raise_to_private(number).to_bytes(key.size, "big")


def _works(key: rsa.RSAPrivateKey) -> bool:
    """Whether the key can sign. Numbers that are no primes cannot, and OpenSSL's check of primes takes a hundred times
    as long."""
    digest = bytes(_SHA256.digest_size)
    try:
        signature = key.sign(digest, padding.PKCS1v15(), Prehashed(_SHA256))
        key.public_key().verify(signature, digest, padding.PKCS1v15(), Prehashed(_SHA256))
    except (ValueError, InvalidSignature, InternalError):
        return False
    return True


def _assembled(p: int, q: int, size: int) -> bytes:
    half = size // 2
    try:
        parts = (p, q, pow(EXPONENT, -1, p - 1), pow(EXPONENT, -1, q - 1), pow(q, -1, p))
        return b"".join(part.to_bytes(half, "big") for part in parts) + (p * q).to_bytes(size, "big")
    except (ValueError, OverflowError):
        raise DeviceError(ErrorCode.INVALID_DATA) from None


@lru_cache(maxsize=128)
def _loaded(material: bytes) -> _Key:
    size = len(material) * 2 // 7
    half = size // 2
    p, q, dp, dq, qinv = (int.from_bytes(material[i * half : (i + 1) * half], "big") for i in range(5))
    public = rsa.RSAPublicNumbers(EXPONENT, p * q)
    d = pow(EXPONENT, -1, (p - 1) * (q - 1))
    # The numbers were checked when the key came in.
    handle = rsa.RSAPrivateNumbers(p, q, d, dp, dq, qinv, public).private_key(unsafe_skip_rsa_key_validation=True)
    return _Key(p, q, dp, dq, qinv, size, implicit_rejection.secret_of(d, size), handle)
