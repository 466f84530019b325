from collections.abc import Callable
from typing import Final

from yubihsm_emulator.channel import Channel
from yubihsm_emulator.codes import ERROR, NOBODY, REPLY, Command
from yubihsm_emulator.commands import TABLE
from yubihsm_emulator.device import Device
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.log import Event
from yubihsm_emulator.logins import Logins
from yubihsm_emulator.options import Audit
from yubihsm_emulator.reader import Reader
from yubihsm_emulator.request import Holder, Request
from yubihsm_emulator.sessions import Sessions
from yubihsm_emulator.spec import Spec

MAX_MESSAGE: Final = 3136
"""Bytes of data a frame may carry."""

MAX_INNER: Final = 3116
"""Bytes of data a frame within a session may carry."""

CLEAR: Final = Holder(NOBODY, 0, 0, 0)
"""Who runs a command outside a session."""

_WHEN_FULL: Final = {
    Command.GET_LOG_ENTRIES,
    Command.SET_LOG_INDEX,
    Command.CREATE_SESSION,
    Command.AUTHENTICATE_SESSION,
    Command.CLOSE_SESSION,
}
"""What still works when force-audit is on and the log is full (and whatever is allowed in clear, in clear)."""


def nothing() -> None:
    """What a processor does with changes that need not outlive it."""


def undisturbed(_command: int) -> None:
    """What a processor without faults does before a command."""


class Processor:
    """Answers frames: the part of a device between the wire and the handlers.

        0         1            3
        ┌─────────┬────────────┬──────────────┐     reply: command | 80, same layout
        │ command │ length u16 │ data         │     error: 7f 0001 code
        └─────────┴────────────┴──────────────┘

    `save` runs after each frame that changed the device, before the reply leaves. `meet` runs before each command (also
    those in a session) and may raise: `DeviceError` becomes the answer to that command, anything else leaves
    `transceive` with device and session as they were.  Sessions are lost with the processor, as with power.
    """

    def __init__(
        self, device: Device, *, save: Callable[[], None] = nothing, meet: Callable[[int], None] = undisturbed
    ) -> None:
        self.device = device
        self.sessions = Sessions(device.clock)
        self.meet = meet
        self._save = save
        self._saved = device.version
        self._logins = Logins(self.sessions).commands

    def transceive(self, frame: bytes) -> bytes:
        """The reply to one frame; never raises `DeviceError`."""
        try:
            command, data = parse(frame, MAX_MESSAGE)
            if command == Command.SESSION_MESSAGE:
                reply = self._message(data)
            else:
                spec = self._logins.get(command) or TABLE.get(command)
                reply = self._execute(command, data, CLEAR, spec if spec is not None and spec.in_clear else None)
        except DeviceError as error:
            reply = failure(error.code)
        self.save()
        return reply

    def save(self) -> None:
        """Saves the device if it changed since the last time."""
        if self.device.version != self._saved:
            self._save()
            self._saved = self.device.version

    def _message(self, data: bytes) -> bytes:
        """A command inside a session. Its errors come back sealed; only those of the session itself in clear."""
        reader = Reader(data)
        number = reader.u8()
        slot = self.sessions.get(number)
        if not isinstance(slot.state, Channel):
            raise DeviceError(ErrorCode.INVALID_SESSION)
        opened = slot.state.open(number, reader.rest())
        try:
            command, inner = parse(opened.plaintext, MAX_INNER)
            reply = self._execute(command, inner, slot.holder, TABLE.get(command))
        except DeviceError as error:
            command, reply = ERROR, failure(error.code)
        sealed = slot.state.seal(number, opened, reply)
        self.sessions.touch(slot)
        self._follow(command, reply, number)
        return sealed

    def _follow(self, command: int, reply: bytes, session: int) -> None:
        """What happens only after the answer has been sealed."""
        if reply[0] == ERROR:
            return
        if command == Command.CLOSE_SESSION:
            self.sessions.free(session)
        elif command == Command.RESET_DEVICE:
            self.device.reset()
            self.sessions.clear()

    def _execute(self, command: int, data: bytes, holder: Holder, spec: Spec | None) -> bytes:
        """The reply frame of one command, errors included; logged if the options say so."""
        if spec is None:
            return failure(ErrorCode.INVALID_COMMAND)
        blocked = self.device.log.full and self.device.options.force_audit is not Audit.OFF
        if blocked and holder is not CLEAR and command not in _WHEN_FULL:
            return failure(ErrorCode.LOG_FULL)
        answer: bytes | None = None
        try:
            self.meet(command)
            if spec.needs and not holder.capabilities & spec.needs:
                raise DeviceError(ErrorCode.INSUFFICIENT_PERMISSIONS)
            answer = spec.handler(Request(data, holder, self.device))
            if len(answer) > (MAX_MESSAGE if holder is CLEAR else MAX_INNER):
                raise DeviceError(ErrorCode.WRONG_LENGTH)
            reply = frame(command | REPLY, answer)
            result = reply[0]
        except DeviceError as error:
            reply = failure(error.code)
            result = error.code
        self._log(command, len(data), holder, (spec.target(data, answer), spec.second(data, answer)), result)
        return reply

    def _log(self, command: int, length: int, holder: Holder, keys: tuple[int, int], result: int) -> None:
        device = self.device
        if not device.options.logs(command) or command == Command.GET_LOG_ENTRIES:
            return
        if device.log.full and device.options.force_audit is not Audit.OFF:
            if command in self._logins:
                device.log.count_login()
            return
        device.log.append(Event(command, length, holder.key_id, *keys, result, device.tick))


def parse(raw: bytes, limit: int) -> tuple[int, bytes]:
    """Command and data of a frame; WRONG LENGTH where its length says otherwise or is above the limit."""
    reader = Reader(raw)
    command, size = reader.u8(), reader.u16()
    if size != reader.remaining or size > limit:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    return command, reader.rest()


def frame(command: int, data: bytes) -> bytes:
    return bytes((command,)) + len(data).to_bytes(2, "big") + data


def failure(code: ErrorCode) -> bytes:
    return frame(ERROR, bytes((code,)))
