"""How a session begins: with a shared AES key pair in two steps (SCP03), or with P-256 keys in one (as SCP11b with a
static key of the host)."""

import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

from yubihsm_emulator.channel import MAC_SIZE, Channel, Keys, cmac
from yubihsm_emulator.codes import Command
from yubihsm_emulator.errors import DeviceError, ErrorCode

CHALLENGE_SIZE: Final = 8
POINT_SIZE: Final = 65

_ENC, _MAC, _RMAC, _CARD, _HOST = 0x04, 0x06, 0x07, 0x00, 0x01


@dataclass(frozen=True, slots=True)
class Challenge:
    """A symmetric handshake after its first step.

    First step   host: key id ‖ host challenge [8]     device: session ‖ card challenge [8] ‖ card cryptogram [8]
    Second step  host: session ‖ host cryptogram [8] ‖ mac [8]                              device: nothing
    """

    keys: Keys
    card_cryptogram: bytes
    host_cryptogram: bytes

    def answer(self, session: int, answered: bytes) -> Channel:
        """The channel, if host cryptogram and MAC (16 bytes) are right; else AUTHENTICATION FAILED."""
        prefix = bytes((Command.AUTHENTICATE_SESSION, 0, 1 + CHALLENGE_SIZE + MAC_SIZE, session))
        chain = cmac(self.keys.mac, bytes(16), prefix, self.host_cryptogram)
        if not hmac.compare_digest(answered, self.host_cryptogram + chain[:MAC_SIZE]):
            raise DeviceError(ErrorCode.AUTHENTICATION_FAILED)
        return Channel(self.keys, chain)


def challenge(material: bytes, host_challenge: bytes, card_challenge: bytes) -> Challenge:
    """`material`: K-ENC ‖ K-MAC of an authentication key."""
    context = host_challenge + card_challenge
    enc, mac = material[:16], material[16:]
    keys = Keys(_derive(enc, _ENC, 16, context), _derive(mac, _MAC, 16, context), _derive(mac, _RMAC, 16, context))
    card, host = (_derive(keys.mac, kind, CHALLENGE_SIZE, context) for kind in (_CARD, _HOST))
    return Challenge(keys, card, host)


@dataclass(frozen=True, slots=True)
class Agreement:
    """An asymmetric handshake, which is over at once.

    host: key id ‖ ephemeral point [65]        device: session ‖ ephemeral point [65] ‖ receipt [16]
    """

    point: bytes
    receipt: bytes
    channel: Channel


def agree(material: bytes, host_point: bytes, static_key: bytes) -> Agreement:
    """`material`: X ‖ Y of the host's key; `static_key`: the device's scalar. INVALID DATA for what is no point."""
    curve = ec.SECP256R1()
    try:
        host_ephemeral = ec.EllipticCurvePublicKey.from_encoded_point(curve, host_point)
        host_static = ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + material)
    except ValueError:
        raise DeviceError(ErrorCode.INVALID_DATA) from None
    ephemeral = ec.generate_private_key(curve)
    static = ec.derive_private_key(int.from_bytes(static_key, "big"), curve)
    shared = ephemeral.exchange(ec.ECDH(), host_ephemeral) + static.exchange(ec.ECDH(), host_static)
    derived = X963KDF(hashes.SHA256(), 64, b"\x3c\x88\x10").derive(shared)
    receipt_key, enc, mac, rmac = (derived[at : at + 16] for at in range(0, 64, 16))
    point = encode_point(ephemeral.public_key())
    receipt = cmac(receipt_key, point, host_point)
    return Agreement(point, receipt, Channel(Keys(enc, mac, rmac), receipt))


def encode_point(key: ec.EllipticCurvePublicKey) -> bytes:
    """04 ‖ X ‖ Y."""
    numbers = key.public_numbers()
    return b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def _derive(key: bytes, kind: int, size: int, context: bytes) -> bytes:
    """SP 800-108 counter mode with AES-CMAC, as SCP03 section 4.1.5 lays it out; one block is enough here."""
    label = bytes((0,)) * 11 + bytes((kind,))
    return cmac(key, label, b"\0", (size * 8).to_bytes(2, "big"), b"\1", context)[:size]
