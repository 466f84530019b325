"""From a password to the keys of a session, all of them in locked memory.

    password ── PBKDF2-HMAC-SHA256("Yubico", 10,000) ──▶ 32 bytes: K-ENC | K-MAC, or the scalar of a P-256 key

    symmetric    CREATE SESSION: host challenge ▶ ◀ card challenge, card cryptogram
                 AUTHENTICATE SESSION: host cryptogram, MAC ▶
    asymmetric   CREATE SESSION: host's ephemeral key ▶ ◀ device's ephemeral key, receipt
                 (ANSI X9.63 KDF over both Diffie-Hellman secrets; SCP11b with a static host key)

    both end in S-ENC | S-MAC | S-RMAC, 16 bytes each, and the first MAC chaining value

The `yubihsm` package does the same with `str` and `bytes`; here nothing of it is left in the heap when a session ends.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import os
import struct
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import cmac, hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from yubihsm.defs import ALGORITHM, COMMAND

from openk_hsm.errors import Untrusted, WrongPin
from openk_memory.region import Region
from openk_memory.wiping import wipe

SESSION_KEYS: Final = 48
_STATIC: Final = 32
_SALT: Final = b"Yubico"
_ITERATIONS: Final = 10_000
_S_ENC, _S_MAC, _S_RMAC, _CARD, _HOST = 0x04, 0x06, 0x07, 0x00, 0x01
_SHARED_INFO: Final = b"\x3c\x88\x10"
_PKCS8: Final = bytes.fromhex("3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420")
"""What stands before a P-256 scalar in PKCS #8 (RFC 5958) without its public key."""
_BYTES_HEADER: Final = bytes.__basicsize__ - 1
_DECOY: Final = _PKCS8 + bytes(range(1, _STATIC + 1))
"""A private key that is none."""

Send = Callable[[COMMAND, bytes], bytes]
"""A command in clear and its answer's data. Raises what the device's connection raises."""


class Credentials:
    """An authentication key's number and its static key, in locked memory until `close`."""

    def __init__(self, key: int, password: memoryview, *, asymmetric: bool, device_key: str = "") -> None:
        """`device_key`: SHA-256 (hex) of the device's public key, checked where sessions are asymmetric."""
        self.key = key
        self.asymmetric = asymmetric
        self._device_key = device_key
        self._region = Region(len(_PKCS8) + _STATIC + SESSION_KEYS + 16 + _STATIC * 2)
        view = self._region.view
        at = len(_PKCS8)
        self._pkcs8 = view[: at + _STATIC]
        self._static = view[at : at + _STATIC]
        self._derived = view[at + _STATIC : at + _STATIC + 16 + SESSION_KEYS]
        self._secrets = view[at + _STATIC + 16 + SESSION_KEYS :][: 2 * _STATIC]
        self._pkcs8[:at] = _PKCS8
        PBKDF2HMAC(hashes.SHA256(), _STATIC, _SALT, _ITERATIONS).derive_into(password, self._static)

    def close(self) -> None:
        self._region.release()

    def open_session(self, send: Send, keys: memoryview) -> tuple[int, bytes]:
        """The session's number and MAC chaining value; `keys` (48 bytes of locked memory) get its keys.
        Raises WrongPin when the device's answer shows that its key is another, Untrusted for another device."""
        return (self._asymmetric if self.asymmetric else self._symmetric)(send, keys)

    def _symmetric(self, send: Send, keys: memoryview) -> tuple[int, bytes]:
        challenge = os.urandom(8)
        answer = send(COMMAND.CREATE_SESSION, struct.pack(">H", self.key) + challenge)
        if len(answer) != 17:
            raise Untrusted("the device answered CREATE SESSION with a wrong length")
        number, card_cryptogram = answer[0], answer[9:]
        context = challenge + answer[1:9]
        encryption, mac = self._static[:16], self._static[16:]
        _take(_derive(encryption, _S_ENC, context), keys[:16])
        _take(_derive(mac, _S_MAC, context), keys[16:32])
        _take(_derive(mac, _S_RMAC, context), keys[32:48])
        session_mac = keys[16:32]
        if not hmac.compare_digest(_derive(session_mac, _CARD, context, 64), card_cryptogram):
            raise _wrong(self.key)
        body = struct.pack(">B", number) + _derive(session_mac, _HOST, context, 64)
        chain = _cmac(session_mac, bytes(16), struct.pack(">BH", COMMAND.AUTHENTICATE_SESSION, len(body) + 8), body)
        send(COMMAND.AUTHENTICATE_SESSION, body + chain[:8])
        return number, chain

    def _asymmetric(self, send: Send, keys: memoryview) -> tuple[int, bytes]:
        try:
            static = load_der_private_key(self._pkcs8, None)
        except (ValueError, UnsupportedAlgorithm):  # one password in 2^32
            raise WrongPin("this password gives no P-256 key: choose another", device="YUBIHSM_PASSWORD") from None
        if not isinstance(static, ec.EllipticCurvePrivateKey):
            raise TypeError("PKCS #8 of a P-256 key is a P-256 key")
        device = self._device_point(send)
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        point = ephemeral.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        answer = send(COMMAND.CREATE_SESSION, struct.pack(">H", self.key) + point)
        if len(answer) != 82:
            raise Untrusted("the device answered CREATE SESSION with a wrong length")
        number, theirs, receipt = answer[0], answer[1:66], answer[66:]
        try:
            _take(ephemeral.exchange(ec.ECDH(), _point(theirs)), self._secrets[:_STATIC])
            _take(static.exchange(ec.ECDH(), _point(device)), self._secrets[_STATIC:])
            X963KDF(hashes.SHA256(), 64, _SHARED_INFO).derive_into(self._secrets, self._derived)
            if not hmac.compare_digest(_cmac(self._derived[:16], theirs, point), receipt):
                raise _wrong(self.key)
            keys[:] = self._derived[16:]
        except ValueError:
            raise Untrusted("the device's public key is not a point of P-256") from None
        finally:
            wipe(self._secrets)
            wipe(self._derived)
            del static, ephemeral
            _scrub()
        return number, receipt

    def _device_point(self, send: Send) -> bytes:
        answer = send(COMMAND.GET_DEVICE_PUBLIC_KEY, b"")
        if len(answer) != 65 or answer[0] != ALGORITHM.EC_P256_YUBICO_AUTHENTICATION:
            raise Untrusted("the device has no public key of the kind that asymmetric sessions need")
        digest = hashlib.sha256(answer[1:]).hexdigest()
        if self._device_key and not hmac.compare_digest(digest, self._device_key):
            raise Untrusted(f"this is another device: the SHA-256 of its public key is {digest}, not the URI's")
        return b"\x04" + answer[1:]


def _point(encoded: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), encoded)


def _scrub() -> None:
    """Libcrypto's multiplication leaves the scalar, last byte first, in dead stack frames of this thread: the same
    steps with one that is no secret overwrite it. What it leaves in freed blocks of the heap is the allocator's to
    overwrite (openk_memory.environment)."""
    decoy = load_der_private_key(_DECOY, None)
    if isinstance(decoy, ec.EllipticCurvePrivateKey):
        decoy.exchange(ec.ECDH(), decoy.public_key())


def _wrong(key: int) -> WrongPin:
    return WrongPin(
        f"the YubiHSM's authentication key {key} has another password (or is of the other kind: ?authentication=)",
        device="YUBIHSM_AUTHENTICATION_FAILED",
    )


def _derive(key: memoryview, kind: int, context: bytes, bits: int = 128) -> bytes:
    """GlobalPlatform SCP03 section 4.1.5: one block of SP 800-108 in counter mode with AES-CMAC."""
    return _cmac(key, bytes(11), struct.pack(">BBHB", kind, 0, bits, 1), context)[: bits // 8]


def _cmac(key: memoryview, *parts: bytes) -> bytes:
    mac = cmac.CMAC(algorithms.AES(key))
    for part in parts:
        mac.update(part)
    return mac.finalize()


def _take(secret: bytes, into: memoryview) -> None:
    """Move a secret that a library gives only as `bytes`: copied into locked memory, zeroed where it lay. CPython."""
    into[: len(secret)] = secret
    ctypes.memset(id(secret) + _BYTES_HEADER, 0, len(secret))
