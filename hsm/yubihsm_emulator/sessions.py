from dataclasses import dataclass
from typing import Final

from yubihsm_emulator.channel import Channel
from yubihsm_emulator.device import Clock
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.handshake import Challenge
from yubihsm_emulator.request import Holder

MAX_SESSIONS: Final = 16
IDLE: Final = 30.0
"""Seconds after which an unused session is gone."""


@dataclass(slots=True)
class Slot:
    """A session: challenged but not yet answered (`challenge`), or live (`channel`)."""

    holder: Holder
    state: Challenge | Channel
    used: float = 0.0


class Sessions:
    """The 16 sessions of a device. Whatever is not used for 30 s makes room when room is needed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots: dict[int, Slot] = {}

    def allot(self, slot: Slot) -> int:
        """The lowest free number for this session; SESSIONS FULL."""
        for number in range(MAX_SESSIONS):
            if number not in self._slots or self._expired(self._slots[number]):
                self._slots[number] = slot
                self.touch(slot)
                return number
        raise DeviceError(ErrorCode.SESSIONS_FULL)

    def get(self, number: int) -> Slot:
        """The session of this number; INVALID SESSION where there is none (any more)."""
        slot = self._slots.get(number)
        if slot is None or self._expired(slot):
            self._slots.pop(number, None)
            raise DeviceError(ErrorCode.INVALID_SESSION)
        return slot

    def touch(self, slot: Slot) -> None:
        """Its 30 seconds begin anew."""
        slot.used = self._clock()

    def free(self, number: int) -> None:
        self._slots.pop(number, None)

    def clear(self) -> None:
        self._slots.clear()

    def _expired(self, slot: Slot) -> bool:
        return self._clock() - slot.used >= IDLE
