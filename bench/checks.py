"""Before it is timed, the work is checked: the answer a client gets must be the right one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from bench.daemon import VAULT
from bench.stage import Stage


class WrongAnswer(Exception):
    """openk answered, but not what it should: a number would mean nothing."""


def sign(stage: Stage, workers: int, name: str) -> None:
    """One signature, verified with the public key. Raises cryptography's InvalidSignature."""
    daemon, key, text = stage.daemon(workers), f"{VAULT}/{name}", hashlib.sha256(b"bench").digest()
    public = load_der_public_key(_bytes(daemon.call("key.public", {"key": key})["public"]))
    signature = _bytes(daemon.call("key.sign", {"key": key, "input": text, "hash": "sha-256"})["signature"])
    match public:
        case ec.EllipticCurvePublicKey():
            public.verify(signature, text, ec.ECDSA(hashes.SHA256()))
        case rsa.RSAPublicKey():
            _verify_rsa(public, signature, text)
        case _:
            message = f"{key} is a {type(public).__name__}"
            raise WrongAnswer(message)


def _verify_rsa(public: rsa.RSAPublicKey, signature: bytes, text: bytes) -> None:
    """PSS is the default of key.sign; the salt may have any length."""
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
    public.verify(signature, text, scheme, hashes.SHA256())


def mac(stage: Stage, workers: int) -> None:
    daemon, request = stage.daemon(workers), {"key": f"{VAULT}/hmac", "input": b"\x5a" * 64}
    answer = daemon.call("key.mac", request)
    daemon.call("key.verify_mac", {**request, "mac": answer["mac"]})
    batch = daemon.call("key.mac", {"key": request["key"], "items": [{"input": request["input"]}] * 3})["results"]
    each = cast("list[Mapping[str, object]]", batch) if isinstance(batch, list) else []
    if [item.get("mac") for item in each] != [answer["mac"]] * 3:
        message = "a batch gives other MACs than single requests"
        raise WrongAnswer(message)


def encrypt(stage: Stage) -> None:
    daemon, key, text = stage.daemon(1), f"{VAULT}/gcm", bytes(range(256))
    sealed = daemon.call("key.encrypt", {"key": key, "input": text})["ciphertext"]
    if _bytes(daemon.call("key.decrypt", {"key": key, "ciphertext": sealed})["plaintext"]) != text:
        message = "what was encrypted does not come back"
        raise WrongAnswer(message)


def secret(stage: Stage) -> None:
    if len(_bytes(stage.daemon(1).call("secret.get", {"secret": f"{VAULT}/password"})["value"])) != 32:
        message = "the secret does not come back"
        raise WrongAnswer(message)


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, memoryview):
        return cast("memoryview[int]", value).tobytes()
    message = f"bytes were expected, not {type(value).__name__}"
    raise WrongAnswer(message)
