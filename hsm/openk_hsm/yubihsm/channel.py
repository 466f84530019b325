"""One session with a device: commands go out encrypted and authenticated, answers are opened in locked memory.

    message   05 | len u16 | session u8 | AES-128-CBC(S-ENC): inner frame, 80, zeros | CMAC(S-MAC, chain | ...)[:8]
    inner     command u8 | len u16 | data               answer: command + 80, or 7f with an error code
    answer    85 | len u16 | session u8 | likewise, same IV                         | CMAC(S-RMAC, chain' | ...)[:8]

The IV is the counter, encrypted; counter and chain move on with each answer (SCP03 sections 6.2.4 to 6.2.7).
"""

from __future__ import annotations

import hmac
import struct
from typing import Final

from cryptography.hazmat.primitives import cmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from yubihsm.backends import YhsmBackend
from yubihsm.defs import COMMAND
from yubihsm.exceptions import YubiHsmConnectionError

from openk_hsm.errors import InvalidInput
from openk_hsm.yubihsm.codes import SESSION_LOST
from openk_hsm.yubihsm.login import SESSION_KEYS, Credentials
from openk_memory.region import Region
from openk_memory.wiping import wipe

SCRATCH: Final = 4096
ERROR: Final = 0x7F
_ANSWER: Final = 0x80
_BLOCK: Final = 16
_FRAME: Final = struct.Struct(">BH")
_OUTER: Final = struct.Struct(">BHB")

Buffer = bytes | memoryview


class LinkLost(Exception):
    """No answer, or one that is not authentic: the command may or may not have been done."""


class SessionLost(Exception):
    """The device does not know the session any more: the command was not done."""


class Refused(Exception):
    """The device answered with an error code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code:#04x}")
        self.code = code


def send_clear(transport: YhsmBackend, command: COMMAND, data: bytes = b"") -> bytes:
    """A command outside a session, and its answer's data. Raises LinkLost, Refused."""
    try:
        frame = transport.transceive(_FRAME.pack(command, len(data)) + data)
    except YubiHsmConnectionError as error:
        raise LinkLost(str(error)) from None
    _check(memoryview(frame), command)
    return frame[_FRAME.size :]


def _check(frame: memoryview, command: int) -> None:
    """Raises Refused for an error, LinkLost for a frame that is not the answer to `command`."""
    if len(frame) < _FRAME.size:
        raise LinkLost("a frame without a header")
    kind, length = _FRAME.unpack_from(frame)
    if length != len(frame) - _FRAME.size:
        raise LinkLost("a frame of another length than it says")
    if kind == ERROR and length == 1:
        raise Refused(frame[3])
    if kind != command | _ANSWER:
        raise LinkLost("an answer to another command")


class Channel:
    """One authenticated session. `close` wipes its keys; the device forgets it after 30 idle seconds."""

    def __init__(self, transport: YhsmBackend, credentials: Credentials) -> None:
        """Logs in. Raises LinkLost, Refused, WrongPin, Untrusted."""
        self._transport = transport
        self._region = Region(SESSION_KEYS + 2 * SCRATCH)
        view = self._region.view
        keys = view[:SESSION_KEYS]
        self._plain = view[SESSION_KEYS : SESSION_KEYS + SCRATCH]
        self._opened = view[SESSION_KEYS + SCRATCH :]
        try:
            self.number, self._chain = credentials.open_session(
                lambda command, data: send_clear(transport, command, data), keys
            )
        except BaseException:
            self._region.release()
            raise
        self._encryption = algorithms.AES(keys[:16])
        self._mac = algorithms.AES(keys[16:32])
        self._answer_mac = algorithms.AES(keys[32:48])
        self._counter = 1

    def exchange(self, command: COMMAND, parts: tuple[Buffer, ...]) -> memoryview:
        """The answer's data, in locked memory, until the next call. Raises LinkLost, SessionLost, Refused."""
        length = self._fill(command, parts)
        cipher = Cipher(self._encryption, modes.CBC(self._iv()))
        sealed = cipher.encryptor().update(self._plain[:length])
        wipe(self._plain[:length])
        head = _OUTER.pack(COMMAND.SESSION_MESSAGE, 1 + length + 8, self.number)
        chain = _cmac(self._mac, self._chain, head, sealed)
        try:
            frame = self._transport.transceive(head + sealed + chain[:8])
        except YubiHsmConnectionError as error:
            raise LinkLost(str(error)) from None
        answer = memoryview(frame)
        try:
            _check(answer, COMMAND.SESSION_MESSAGE)
        except Refused as refused:
            if refused.code in SESSION_LOST:
                raise SessionLost(refused.code) from None
            raise
        body = answer[_OUTER.size : -8]
        if len(answer) < _OUTER.size + _BLOCK + 8 or answer[3] != self.number or len(body) % _BLOCK:
            raise LinkLost("an answer of an impossible shape")
        if not hmac.compare_digest(_cmac(self._answer_mac, chain, frame[:-8])[:8], frame[-8:]):
            raise LinkLost("an answer that the device did not authenticate")
        self._counter += 1
        self._chain = chain
        wipe(self._opened)
        opened = cipher.decryptor().update_into(body, self._opened)
        return self._unpack(command, opened)

    def _fill(self, command: COMMAND, parts: tuple[Buffer, ...]) -> int:
        """The padded inner frame in `_plain`; its length."""
        plain = self._plain
        at = _FRAME.size
        total = sum(map(len, parts))
        if at + total + 1 > SCRATCH - _BLOCK:
            raise InvalidInput("the input is larger than a message to a YubiHSM")
        _FRAME.pack_into(plain, 0, command, total)
        for part in parts:
            plain[at : at + len(part)] = part
            at += len(part)
        end = at + _BLOCK - at % _BLOCK
        plain[at] = 0x80
        plain[at + 1 : end] = bytes(end - at - 1)
        return end

    def _unpack(self, command: COMMAND, opened: int) -> memoryview:
        frame = self._opened[:opened]
        kind, length = _FRAME.unpack_from(frame)
        if _FRAME.size + length >= opened:
            raise LinkLost("an answer of another length than it says")
        if kind == ERROR and length == 1:
            raise Refused(frame[3])
        if kind != command | _ANSWER:
            raise LinkLost("an answer to another command")
        return frame[_FRAME.size : _FRAME.size + length]

    def _iv(self) -> bytes:
        encryptor = Cipher(self._encryption, modes.ECB()).encryptor()  # noqa: S305 - one block: that is how SCP03 makes IVs
        return encryptor.update(self._counter.to_bytes(_BLOCK, "big"))

    def close(self) -> None:
        """Forget the keys. The device is not told: it may be gone."""
        self._region.release()


def _cmac(key: algorithms.AES, *parts: bytes) -> bytes:
    mac = cmac.CMAC(key)
    for part in parts:
        mac.update(part)
    return mac.finalize()
