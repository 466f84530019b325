"""Public keys: verification, OAEP encryption and encapsulation are done in the daemon; there is no secret to keep."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from openk_daemon.keys.manners import Manner, Oaep
from openk_daemon.keys.objects import lent
from openk_daemon.refusal import Refusal

MlDsaPublic = mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
MlKemPublic = mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey
PublicKey = (
    ec.EllipticCurvePublicKey
    | ed25519.Ed25519PublicKey
    | rsa.RSAPublicKey
    | x25519.X25519PublicKey
    | MlDsaPublic
    | MlKemPublic
)
_KINDS: Final = (
    ec.EllipticCurvePublicKey,
    ed25519.Ed25519PublicKey,
    rsa.RSAPublicKey,
    x25519.X25519PublicKey,
    mldsa.MLDSA44PublicKey,
    mldsa.MLDSA65PublicKey,
    mldsa.MLDSA87PublicKey,
    mlkem.MLKEM768PublicKey,
    mlkem.MLKEM1024PublicKey,
)
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha-1": hashes.SHA1(),  # noqa: S303 - OAEP only
    "sha-256": hashes.SHA256(),
    "sha-384": hashes.SHA384(),
    "sha-512": hashes.SHA512(),
}


def load_public(der: bytes) -> PublicKey:
    """SubjectPublicKeyInfo -> key. Raises ValueError."""
    key = serialization.load_der_public_key(der)
    if not isinstance(key, _KINDS):
        raise ValueError("not a kind of key openk makes")  # noqa: TRY004 - the caller judges values
    return key


def pem(der: bytes) -> str:
    """RFC 7468."""
    key = serialization.load_der_public_key(der)
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def verify(key: PublicKey, manner: Manner, data: memoryview, signature: memoryview) -> None:
    """Raises Refusal(key.signature_invalid)."""
    message = manner.message(data)
    try:
        _verify(key, manner, message, signature)
    except InvalidSignature:
        raise Refusal("key.signature_invalid") from None


def _verify(key: PublicKey, manner: Manner, message: bytes | memoryview, signature: memoryview) -> None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, message, ec.ECDSA(Prehashed(_HASHES[manner.hash_name])))
    elif isinstance(key, rsa.RSAPublicKey):
        algorithm = _HASHES[manner.hash_name]
        key.verify(bytes(signature), bytes(message), _rsa_padding(manner, algorithm), Prehashed(algorithm))
    elif isinstance(key, ed25519.Ed25519PublicKey | MlDsaPublic):
        key.verify(signature, message)
    else:
        raise Refusal("key.unsuitable")


def _rsa_padding(manner: Manner, algorithm: hashes.HashAlgorithm) -> padding.PSS | padding.PKCS1v15:
    if manner.padding == "pss":
        return padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
    return padding.PKCS1v15()


def encrypt_oaep(key: PublicKey, manner: Oaep, data: memoryview) -> bytes:
    """Raises Refusal(key.input_invalid) for input that does not fit."""
    if not isinstance(key, rsa.RSAPublicKey):
        raise Refusal("key.unsuitable")
    if len(data) > manner.most:
        raise Refusal("key.input_invalid", f"at most {manner.most} bytes fit", details={"most": manner.most})
    algorithm = _HASHES[manner.hash_name]
    with lent(data) as plain:
        return key.encrypt(plain, padding.OAEP(padding.MGF1(algorithm), algorithm, None))
