"""A YubiHSM and our session with it: commands, again where that is safe, and the log that tells of each.

    ask ─▶ write down (log) ─▶ channel ─▶ device          session lost (idle, reboot)   nothing was done: log in, again
                                                          no authentic answer           log in; again if `pure`
                                                          LOG FULL                      drain the log; again

One command at a time: the device does no more, whoever asks.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Final

from yubihsm.backends import YhsmBackend
from yubihsm.core import DeviceInfo
from yubihsm.defs import ALGORITHM, COMMAND, OPTION

from openk_hsm.errors import HsmError, InvalidInput, TokenMissing, Unavailable, Unsupported, WrongPin
from openk_hsm.yubihsm import codes
from openk_hsm.yubihsm.channel import Buffer, Channel, LinkLost, Refused, SessionLost, send_clear
from openk_hsm.yubihsm.entries import NOWHERE, Sent, parse_entries
from openk_hsm.yubihsm.log import DeviceLog
from openk_hsm.yubihsm.login import Credentials

OLDEST: Final = (2, 1, 0)
ASYMMETRIC_SINCE: Final = (2, 3, 0)
IDLE: Final = 10.0
"""Seconds without a command after which `keep_alive` says something; the device waits 30."""
_TARGETLESS: Final = frozenset(
    {
        COMMAND.CLOSE_SESSION,
        COMMAND.GET_STORAGE_INFO,
        COMMAND.LIST_OBJECTS,
        COMMAND.GET_LOG_ENTRIES,
        COMMAND.SET_LOG_INDEX,
        COMMAND.GET_OPTION,
        COMMAND.GET_PSEUDO_RANDOM,
        COMMAND.ECHO,
    }
)
_MAKING: Final = frozenset({COMMAND.GENERATE_ASYMMETRIC_KEY, COMMAND.GENERATE_HMAC_KEY, COMMAND.GENERATE_WRAP_KEY})
_ID: Final = struct.Struct(">H")


class Device:
    """Connected, not logged in, after the constructor. `close` ends the session."""

    def __init__(self, transport: YhsmBackend) -> None:
        """Asks the device who it is. Raises Unavailable when there is none, Unsupported for a firmware too old."""
        self._transport = transport
        self._credentials: Credentials | None = None
        self._channel: Channel | None = None
        self._log: DeviceLog | None = None
        self._used = 0.0
        self._asked: list[int] = []  # lengths of DEVICE INFO's data, for the log, which is not there yet
        self.sessions = 0
        """Sessions opened so far."""
        self.info = self._ask_info()
        self.serial = f"{self.info.serial:010d}"
        self.firmware = ".".join(map(str, self.info.version))
        if self.info.version < OLDEST:
            raise Unsupported(
                f"the YubiHSM {self.serial} has firmware {self.firmware}; openk needs {'.'.join(map(str, OLDEST))} or "
                "newer. Firmware cannot be updated: use a newer device"
            )
        self.most = 3116 if self.info.version >= (2, 4, 0) else 2028
        """Bytes of a command's data, and of an answer's."""

    def _ask_info(self) -> DeviceInfo:
        try:
            first = send_clear(self._transport, COMMAND.DEVICE_INFO)
            self._asked.append(0)
            if len(first) < DeviceInfo.LENGTH:
                raise LinkLost("the device's description is cut short")
            info = DeviceInfo.parse(first)
            if info.version >= (2, 4, 0):
                info = DeviceInfo.parse(first, send_clear(self._transport, COMMAND.DEVICE_INFO, b"\1"))
                self._asked.append(1)
        except LinkLost as lost:
            raise Unavailable(
                f"no YubiHSM answers: is the connector running, the device plugged in? ({lost})"
            ) from None
        except (Refused, UnicodeDecodeError) as refused:
            raise Unavailable(f"the YubiHSM does not say who it is: {refused}") from None
        return info

    def log_in(self, credentials: Credentials, folder: Path | None) -> DeviceLog:
        """Open a session and begin to follow the log. `credentials` are the device's to close.
        Raises WrongPin, Unavailable, HsmError."""
        if credentials.asymmetric and self.info.version < ASYMMETRIC_SINCE:
            raise Unsupported(f"firmware {self.firmware} has no asymmetric sessions: use ?authentication=symmetric")
        self._credentials = credentials
        self._log = DeviceLog(folder, self.serial, credentials.key)
        self._channel = self._open_channel(credentials)
        self._log.learn(self._logged_commands(), forced=self.audit_forced())
        self.drain()
        return self._log

    def _open_channel(self, credentials: Credentials) -> Channel:
        first, second = self._write_down_login(credentials)
        try:
            channel = Channel(self._transport, credentials)
        except LinkLost as lost:
            raise Unavailable(f"the YubiHSM went while a session was opened ({lost})") from None
        except WrongPin:
            _answered(first, COMMAND.CREATE_SESSION | 0x80)
            raise
        except Refused as refused:
            raise self._refused_login(refused.code, credentials.key) from None
        _answered(first, COMMAND.CREATE_SESSION | 0x80)
        _answered(second, COMMAND.AUTHENTICATE_SESSION | 0x80)
        self.sessions += 1
        self._used = monotonic()
        return channel

    def _write_down_login(self, credentials: Credentials) -> tuple[Sent | None, Sent | None]:
        log, key = self._log, credentials.key
        if log is None:
            return None, None
        for length in self._asked:
            log.sends(COMMAND.DEVICE_INFO, length, NOWHERE, NOWHERE)
        self._asked.clear()
        if credentials.asymmetric:
            log.sends(COMMAND.GET_DEVICE_PUBLIC_KEY, 0, NOWHERE, NOWHERE)
            return log.sends(COMMAND.CREATE_SESSION, 67, NOWHERE, key), None
        first = log.sends(COMMAND.CREATE_SESSION, 10, NOWHERE, key)
        return first, log.sends(COMMAND.AUTHENTICATE_SESSION, 17, NOWHERE, key)

    def _refused_login(self, code: int, key: int) -> HsmError:
        if code == codes.AUTHENTICATION_FAILED:
            return WrongPin(f"authentication key {key} did not accept the password", device=codes.name_of(code))
        if code == codes.OBJECT_NOT_FOUND:
            return TokenMissing(
                f"the YubiHSM {self.serial} has no authentication key {key}: make one (docs/hsm.md), or change "
                "?auth-key= of the URI",
                device=codes.name_of(code),
            )
        if code == codes.INVALID_DATA:
            return WrongPin(
                f"authentication key {key} is of the other kind: change ?authentication= of the URI",
                device=codes.name_of(code),
            )
        return codes.error_of(code, "opening a session")

    # --- commands ---

    def ask(
        self, command: COMMAND, *parts: Buffer, pure: bool = True, invalid: type[HsmError] = InvalidInput
    ) -> memoryview:
        """The answer's data in locked memory, until the next command. `invalid`: what INVALID DATA and WRONG LENGTH
        mean here. `pure`: may be done twice. Raises HsmError; Unavailable when the device has gone."""
        if sum(map(len, parts)) > self.most:
            raise InvalidInput(f"a YubiHSM with firmware {self.firmware} takes at most {self.most} bytes at once")
        log = self._log
        if log is not None and log.due and command not in {COMMAND.GET_LOG_ENTRIES, COMMAND.SET_LOG_INDEX}:
            self.drain()
        drained = False
        tries = 2
        while True:
            tries -= 1
            try:
                return self._once(command, parts)
            except (SessionLost, LinkLost) as lost:
                self._drop()
                if not tries or (isinstance(lost, LinkLost) and not pure):
                    raise Unavailable(f"the YubiHSM has gone ({lost})", device="YUBIHSM_GONE") from None
            except Refused as refused:
                if refused.code == codes.LOG_FULL and not drained:
                    drained = True
                    tries += 1
                    self.drain()
                    continue
                if refused.code in {codes.INVALID_DATA, 0x08}:
                    raise invalid(
                        f"{command.name}: the device refused the data", device=codes.name_of(refused.code)
                    ) from None
                raise codes.error_of(refused.code, command.name) from None

    def _once(self, command: COMMAND, parts: tuple[Buffer, ...]) -> memoryview:
        credentials, log = self._credentials, self._log
        if credentials is None or log is None:
            raise HsmError("the YubiHSM was asked before a session was opened")
        channel = self._channel
        if channel is None:
            channel = self._channel = self._reopen(credentials)
        target = NOWHERE
        if command not in _TARGETLESS and command not in _MAKING and parts:
            target = _ID.unpack_from(parts[0])[0]
        sent = log.sends(command, sum(map(len, parts)), credentials.key, target)
        self._used = monotonic()
        try:
            answer = channel.exchange(command, parts)
        except Refused as refused:
            _answered(sent, refused.code)
            raise
        _answered(sent, command | 0x80)
        if sent is not None and command in _MAKING and len(answer) == _ID.size:
            sent.target = _ID.unpack_from(answer)[0]
        return answer

    def _reopen(self, credentials: Credentials) -> Channel:
        """Another session with the same keys. The password was right once: if it is wrong now, a fresh process must
        find that out, where a wrong password latches."""
        try:
            return self._open_channel(credentials)
        except WrongPin as wrong:
            raise Unavailable(f"the session cannot be opened again: {wrong}", device=wrong.device) from None

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def keep_alive(self) -> None:
        """Say something if nothing was said for a while."""
        if monotonic() - self._used > IDLE:
            self.ask(COMMAND.ECHO, b"openk")

    def random(self, length: int) -> memoryview:
        """At most `most` - 3 bytes."""
        return self.ask(COMMAND.GET_PSEUDO_RANDOM, _ID.pack(length))

    # --- log and options ---

    def drain(self) -> None:
        """Read the log, check it, make it durable, and only then let the device forget it."""
        log = self._log
        if log is None:
            return
        entries = parse_entries(self.ask(COMMAND.GET_LOG_ENTRIES))
        index = log.take(*entries)
        if index is not None:
            self.ask(COMMAND.SET_LOG_INDEX, _ID.pack(index))

    def _logged_commands(self) -> frozenset[int]:
        answer = self._option(OPTION.COMMAND_AUDIT)
        return frozenset(answer[at] for at in range(0, len(answer) - 1, 2) if answer[at + 1])

    def disabled_algorithms(self) -> frozenset[int]:
        """Switched off by this device's owner. Firmware before 2.2 has no such switch."""
        try:
            answer = self._option(OPTION.ALGORITHM_TOGGLE)
        except InvalidInput:
            return frozenset()
        return frozenset(answer[at] for at in range(0, len(answer) - 1, 2) if not answer[at + 1])

    def audit_forced(self) -> bool:
        return self._option(OPTION.FORCE_AUDIT)[:1] != b"\0"

    def _option(self, option: OPTION) -> bytes:
        return bytes(self.ask(COMMAND.GET_OPTION, bytes((option,))))

    def algorithms(self) -> frozenset[ALGORITHM]:
        off = self.disabled_algorithms()
        return frozenset(algorithm for algorithm in self.info.supported_algorithms if algorithm not in off)

    def close(self) -> None:
        """End the session if the device is there, wipe all keys. Idempotent."""
        if self._channel is not None:
            with suppress(LinkLost, SessionLost, Refused, HsmError):  # the device forgets it by itself
                self._once(COMMAND.CLOSE_SESSION, ())
            self._drop()
        if self._credentials is not None:
            self._credentials.close()
            self._credentials = None
        if self._log is not None:
            self._log.close()
        self._transport.close()


def _answered(sent: Sent | None, code: int) -> None:
    if sent is not None:
        sent.answered = code
