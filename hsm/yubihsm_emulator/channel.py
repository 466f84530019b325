"""The secure channel of a session: SCP03's secure messaging as the YubiHSM does it."""

import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from yubihsm_emulator.codes import REPLY, Command
from yubihsm_emulator.errors import DeviceError, ErrorCode

BLOCK: Final = 16
MAC_SIZE: Final = 8


def cmac(key: bytes, *parts: bytes) -> bytes:
    """AES-CMAC (RFC 4493), all 16 bytes."""
    mac = CMAC(algorithms.AES(key))
    for part in parts:
        mac.update(part)
    return mac.finalize()


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one session, AES-128 each."""

    enc: bytes
    mac: bytes
    rmac: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """A command taken out of its message. The channel moves on when the reply is sealed, and not before."""

    plaintext: bytes
    chain: bytes


class Channel:
    """Opens commands and seals their replies.

        0     1        3         4            4+n        12+n
        ┌─────┬────────┬─────────┬────────────┬──────────┐
        │ 05  │ length │ session │ ciphertext │ mac [8]  │      reply: 85, same layout
        │     │ u16    │ u8      │ [n]        │          │
        └─────┴────────┴─────────┴────────────┴──────────┘

    The ciphertext is AES-128-CBC over inner frame ‖ 80 ‖ 00.. ; its IV is the encrypted counter, for command and reply
    alike.  A command's MAC covers the MAC before it (the chain) and all before its own first byte; a reply's covers the
    command's MAC, but the chain stays with the commands.
    """

    def __init__(self, keys: Keys, chain: bytes) -> None:
        self._keys = keys
        self._chain = chain
        self._counter = 1

    def open(self, session: int, sealed: bytes) -> Opened:
        """`sealed`: ciphertext and MAC. WRONG LENGTH, AUTHENTICATION FAILED and INVALID DATA
        leave the channel as it was."""
        ciphertext, mac = sealed[:-MAC_SIZE], sealed[-MAC_SIZE:]
        if len(sealed) < BLOCK + MAC_SIZE or len(ciphertext) % BLOCK:
            raise DeviceError(ErrorCode.WRONG_LENGTH)
        prefix = _prefix(Command.SESSION_MESSAGE, session, ciphertext)
        chain = cmac(self._keys.mac, self._chain, prefix, ciphertext)
        if not hmac.compare_digest(chain[:MAC_SIZE], mac):
            raise DeviceError(ErrorCode.AUTHENTICATION_FAILED)
        decryptor = self._cipher().decryptor()
        padded = decryptor.update(ciphertext) + decryptor.finalize()
        plaintext = padded.rstrip(b"\0")
        if not plaintext.endswith(b"\x80") or len(padded) - len(plaintext) >= BLOCK:
            raise DeviceError(ErrorCode.INVALID_DATA)
        return Opened(plaintext[:-1], chain)

    def seal(self, session: int, opened: Opened, reply: bytes) -> bytes:
        """The frame that carries `reply` as the answer to `opened`."""
        encryptor = self._cipher().encryptor()
        ciphertext = encryptor.update(reply + b"\x80" + bytes(-(len(reply) + 1) % BLOCK)) + encryptor.finalize()
        prefix = _prefix(Command.SESSION_MESSAGE | REPLY, session, ciphertext)
        mac = cmac(self._keys.rmac, opened.chain, prefix, ciphertext)[:MAC_SIZE]
        self._chain = opened.chain
        self._counter += 1
        return prefix + ciphertext + mac

    def _cipher(self) -> Cipher[modes.CBC]:
        key = algorithms.AES(self._keys.enc)
        encryptor = Cipher(key, modes.ECB()).encryptor()  # noqa: S305 - one block: the IV, as the protocol has it
        return Cipher(key, modes.CBC(encryptor.update(self._counter.to_bytes(BLOCK, "big"))))


def _prefix(number: int, session: int, ciphertext: bytes) -> bytes:
    return bytes((number,)) + (1 + len(ciphertext) + MAC_SIZE).to_bytes(2, "big") + bytes((session,))
