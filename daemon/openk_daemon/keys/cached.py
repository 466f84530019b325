"""Work with cached keys: bytes of a key in locked memory, used through `cryptography` and let go.

No object of `cryptography` that holds a key outlives the function that made it: a live AESGCM object keeps two raw
copies of the key in libcrypto's heap, a freed one none. Nothing here awaits.

Material, as it is sealed: AES, HMAC: the raw key. Ed25519, X25519: the 32-byte seed or scalar (RFC 8032, RFC 7748).
ML-DSA, ML-KEM: the seed (FIPS 204 xi; FIPS 203 d || z). P-256/384/521: PKCS #8 (RFC 5958) without the public key,
so that a constant prefix and the scalar are all there is.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, x25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openk_daemon.keys.freed import wipe_freed
from openk_daemon.keys.manners import Manner
from openk_daemon.keys.objects import move
from openk_daemon.keys.verifying import MlKemPublic, PublicKey
from openk_daemon.refusal import Refusal
from openk_hsm.seam import Algorithm

_ED25519: Final = ed25519.Ed25519PrivateKey.from_private_bytes
_X25519: Final = x25519.X25519PrivateKey.from_private_bytes
MlDsaPrivate = mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
MlKemPrivate = mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey
_DECOY: Final = bytes(range(32))
_DECOY_PEER: Final = _X25519(bytes(range(1, 33))).public_key()
_ML_DSA: Final[dict[Algorithm, Callable[[memoryview], MlDsaPrivate]]] = {
    Algorithm.ML_DSA_44: mldsa.MLDSA44PrivateKey.from_seed_bytes,
    Algorithm.ML_DSA_65: mldsa.MLDSA65PrivateKey.from_seed_bytes,
    Algorithm.ML_DSA_87: mldsa.MLDSA87PrivateKey.from_seed_bytes,
}
_ML_KEM: Final[dict[Algorithm, Callable[[memoryview], MlKemPrivate]]] = {
    Algorithm.ML_KEM_768: mlkem.MLKEM768PrivateKey.from_seed_bytes,
    Algorithm.ML_KEM_1024: mlkem.MLKEM1024PrivateKey.from_seed_bytes,
}
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha-256": hashes.SHA256(),
    "sha-384": hashes.SHA384(),
    "sha-512": hashes.SHA512(),
}
_HMAC_HASHES: Final[dict[Algorithm, hashes.HashAlgorithm]] = {
    Algorithm.HMAC_SHA_256: hashes.SHA256(),
    Algorithm.HMAC_SHA_384: hashes.SHA384(),
    Algorithm.HMAC_SHA_512: hashes.SHA512(),
}

# SEQUENCE { 0, SEQUENCE { id-ecPublicKey, curve }, OCTET STRING { SEQUENCE { 1, OCTET STRING (scalar follows)
PKCS8_PREFIX: Final = {
    Algorithm.P256: bytes.fromhex("3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420"),
    Algorithm.P384: bytes.fromhex("304e020100301006072a8648ce3d020106052b81040022043730350201010430"),
    Algorithm.P521: bytes.fromhex("3060020100301006072a8648ce3d020106052b81040023044930470201010442"),
}
ORDER: Final = {
    Algorithm.P256: bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
    Algorithm.P384: bytes.fromhex(
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973"
    ),
    Algorithm.P521: bytes.fromhex(
        "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa"
        "51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409"
    ),
}
"""The curves' orders n (SP 800-186 section 3.2.1), as long as their scalars."""


def shape_scalar(algorithm: Algorithm, scalar: memoryview) -> bool:
    """FIPS 186-5 A.4.2 (rejection): random bytes in place -> a private scalar, or False: draw again.
    Bytewise, because a Python integer would be a copy on the heap; single bytes are shared constants. Every byte is
    looked at and no branch depends on one: what the time tells is the answer, and that one is public."""
    order = ORDER[algorithm]
    if algorithm is Algorithm.P521:
        scalar[0] &= 1
    borrow = nonzero = 0  # of scalar - order, from the last byte on: at the end, whether it is less
    for at in range(len(order) - 1, -1, -1):
        byte = scalar[at]
        nonzero |= byte
        borrow = (byte - order[at] - borrow) >> 8 & 1
    return (nonzero + 0xFF >> 8 & borrow) == 1


def public_of(algorithm: Algorithm, material: memoryview) -> bytes | None:
    """SubjectPublicKeyInfo DER; None for symmetric keys."""
    public: PublicKey
    if algorithm is Algorithm.ED25519:
        public = _ED25519(material).public_key()
    elif algorithm is Algorithm.X25519:
        public = _X25519(material).public_key()
    elif algorithm in PKCS8_PREFIX:
        public = _curve_key(material).public_key()
    elif algorithm in _ML_DSA:
        public = _ML_DSA[algorithm](material).public_key()
    elif algorithm in _ML_KEM:
        public = _ML_KEM[algorithm](material).public_key()
    else:
        return None
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _curve_key(material: memoryview) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_der_private_key(material, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the material of a curve key holds another kind of key")
    return key


def sign(algorithm: Algorithm, material: memoryview, manner: Manner, data: memoryview) -> bytes:
    """ECDSA answers DER. Raises Refusal(key.input_invalid)."""
    message = manner.message(data)
    if algorithm is Algorithm.ED25519:
        return _ED25519(material).sign(message)
    if manner.ecdsa:
        return _curve_key(material).sign(message, ec.ECDSA(Prehashed(_HASHES[manner.hash_name])))
    return _ML_DSA[algorithm](material).sign(message)


def mac(algorithm: Algorithm, material: memoryview, data: bytes | memoryview) -> bytes:
    context = hmac.HMAC(material, _HMAC_HASHES[algorithm])
    context.update(data)
    return context.finalize()


def mac_into(algorithm: Algorithm, material: memoryview, data: bytes | memoryview, into: memoryview) -> None:
    """For derived bytes: the block goes to locked memory and the object it came in is wiped."""
    move(mac(algorithm, material, data), into)


def same(left: bytes, right: memoryview) -> bool:
    """Compared in constant time (for equal lengths)."""
    return compare_digest(left, right)


def agree(algorithm: Algorithm, material: memoryview, peer: bytes, into: memoryview) -> None:
    """`peer` is a raw point. Raises Refusal(key.input_invalid) for points that give no secret."""
    try:
        if algorithm is Algorithm.X25519:
            secret = _X25519(material).exchange(x25519.X25519PublicKey.from_public_bytes(peer))
            # Measured: libcrypto leaves the result in a dead stack frame, in half of the calls for good. The same code
            # path with public inputs goes over it.
            _X25519(_DECOY).exchange(_DECOY_PEER)
        else:
            key = _curve_key(material)
            secret = key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(key.curve, peer))
    except ValueError as error:
        raise Refusal("key.input_invalid", "the public key gives no shared secret") from error
    move(secret, into)


def decapsulate(algorithm: Algorithm, material: memoryview, ciphertext: memoryview, into: memoryview) -> None:
    """Raises Refusal(key.ciphertext_invalid) for a wrong length; ML-KEM rejects other changes implicitly."""
    try:
        secret = _ML_KEM[algorithm](material).decapsulate(ciphertext)
    except ValueError as error:
        raise Refusal("key.ciphertext_invalid") from error
    wipe_freed()
    move(secret, into)


def encapsulate(public: MlKemPublic, into: memoryview) -> bytes:
    """The ciphertext; the shared secret goes to `into`."""
    secret, ciphertext = public.encapsulate()
    wipe_freed()
    move(secret, into)
    return ciphertext


def encrypt(material: memoryview, nonce: bytes, data: memoryview, aad: bytes) -> bytes:
    """ciphertext || tag."""
    return AESGCM(material).encrypt(nonce, data, aad)


def decrypt(material: memoryview, nonce: memoryview, data: memoryview, aad: bytes, into: memoryview) -> None:
    """Raises Refusal(key.ciphertext_invalid)."""
    try:
        AESGCM(material).decrypt_into(nonce, data, aad, into)
    except InvalidTag:
        raise Refusal("key.ciphertext_invalid") from None
