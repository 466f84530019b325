import threading
from collections.abc import Callable

from yubihsm_emulator.device import Device
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.faults import Action, Fault, Plan
from yubihsm_emulator.processor import Processor, failure, nothing


class LinkLost(Exception):
    """No answer comes, and who asked cannot tell whether the command was executed."""


class Unreachable(LinkLost):
    """There is no device at the moment."""


class _Refused(Exception):
    """The answer is an error in clear, whatever the command was sealed in."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.frame = failure(code)


class Link:
    """A device with what may go wrong on the way to it: one frame at a time, from any thread.

    `save` keeps the device (called with it quiet).
    """

    def __init__(self, device: Device, *, save: Callable[[], None] = nothing, plan: Plan | None = None) -> None:
        self.device = device
        self._plan = plan or Plan()
        self._processor = Processor(device, save=save, meet=self._meet)
        self._turn = threading.Lock()
        self._replanned = threading.Event()
        self._back_at = 0.0
        self._spoil = set[Action]()

    @property
    def present(self) -> bool:
        """Whether the connector sees the device."""
        return self.device.clock() >= self._back_at

    @property
    def plan(self) -> Plan:
        return self._plan

    def replan(self, plan: Plan) -> None:
        """Other faults from now on. Delays and absences under way end."""
        self._plan = plan
        self._back_at = 0.0
        self._replanned.set()
        self._replanned = threading.Event()

    def transceive(self, frame: bytes) -> bytes:
        """The device's reply; `Unreachable` or `LinkLost` as the plan has it."""
        with self._turn:
            if not self.present:
                raise Unreachable("there is no device (the fault plan says so)")
            self._spoil.clear()
            try:
                reply = self._processor.transceive(frame)
            except _Refused as refused:
                reply = refused.frame
            finally:
                self._processor.save()
            if Action.DROP_REPLY in self._spoil:
                raise LinkLost("the reply got lost (the fault plan says so)")
            return _flip(reply) if Action.CORRUPT_REPLY in self._spoil else reply

    def _meet(self, command: int) -> None:
        for fault in self._plan.meet(command):
            self._apply(fault)

    def _apply(self, fault: Fault) -> None:
        match fault.do:
            case Action.DELAY:
                self._replanned.wait(fault.seconds)
            case Action.DROP_REPLY | Action.CORRUPT_REPLY:
                self._spoil.add(fault.do)
            case Action.DROP_REQUEST:
                raise LinkLost("the request got lost (the fault plan says so)")
            case Action.LOSE_SESSIONS:
                self._processor.sessions.clear()
                raise _Refused(ErrorCode.INVALID_SESSION)
            case Action.REBOOT:
                self._processor.sessions.clear()
                self.device.boot()
                self._leave(fault.seconds)
            case Action.UNREACHABLE:
                self._leave(fault.seconds)
            case Action.LOG_FULL:
                raise DeviceError(ErrorCode.LOG_FULL)
            case Action.STORAGE_FULL:
                raise DeviceError(ErrorCode.STORAGE_FAILED)
            case Action.ERROR:
                raise DeviceError(fault.code)

    def _leave(self, seconds: float) -> None:
        self._back_at = self.device.clock() + seconds
        raise Unreachable("the device went away (the fault plan says so)")


def _flip(reply: bytes) -> bytes:
    """The frame with one bit of its last byte wrong: of a MAC, where there is one."""
    return reply[:-1] + bytes((reply[-1] ^ 1,))
