from enum import IntEnum
from typing import Final

from yubihsm_emulator.codes import Algorithm, Command
from yubihsm_emulator.errors import DeviceError, ErrorCode


class Audit(IntEnum):
    """How force-audit and the audit of a command are set. `FIXED` stays until the next reset."""

    OFF = 0
    ON = 1
    FIXED = 2


AUDIT_ORDER: Final = bytes.fromhex(
    "01 03 04 05 06 07 09 08 40 41 42 43 44 45 46 47 55 56 48 49 57 4a 4b 4c 4d 67 4e 4f 50 51 52 53 54 58 59 5a 5b 5c"
    "5d 5e 5f 60 61 62 63 64 65 66 68 69 6a 6b 6c 0a 6d 6e 6f 70 71 72 73 74 75 76 77"
)
"""The commands that have an audit setting, in the order in which the device lists them (07 and 09 are undocumented)."""


_ALGORITHMS: Final = frozenset(map(int, Algorithm))


class Options:
    """The settings of a device that a reset takes back."""

    def __init__(self) -> None:
        self.force_audit = Audit.OFF
        self.command_audit: dict[int, Audit] = dict.fromkeys(AUDIT_ORDER, Audit.OFF)
        self.disabled: set[Algorithm] = set()
        self.version = 0
        """Grows with every change."""

    def logs(self, command: int) -> bool:
        return self.command_audit.get(command, Audit.OFF) is not Audit.OFF

    def set_force_audit(self, value: bytes) -> None:
        if len(value) != 1:
            raise DeviceError(ErrorCode.WRONG_LENGTH)
        self.force_audit = _changed(self.force_audit, value[0])
        self.version += 1

    def set_command_audit(self, value: bytes) -> None:
        """Sets the listed commands, all or none. SESSION MESSAGE cannot be audited: INVALID DATA."""
        wanted: dict[int, Audit] = {}
        for command, setting in _pairs(value):
            known = self.command_audit.get(command)
            if known is None or (command == Command.SESSION_MESSAGE and setting != Audit.OFF):
                raise DeviceError(ErrorCode.INVALID_DATA)
            wanted[command] = _changed(known, setting)
        self.command_audit |= wanted
        self.version += 1

    def set_algorithms(self, value: bytes) -> None:
        """Switches the listed algorithms off (0) or on (1), all or none."""
        disabled = set(self.disabled)
        for number, setting in _pairs(value):
            if setting > 1 or number not in _ALGORITHMS:
                raise DeviceError(ErrorCode.INVALID_DATA)
            (disabled.discard if setting else disabled.add)(Algorithm(number))
        self.disabled = disabled
        self.version += 1

    def command_audit_pairs(self) -> bytes:
        return b"".join(bytes(pair) for pair in self.command_audit.items())

    def algorithm_pairs(self) -> bytes:
        return b"".join(bytes((one, one not in self.disabled)) for one in Algorithm)


def _changed(present: Audit, wanted: int) -> Audit:
    if wanted > Audit.FIXED or (present is Audit.FIXED and wanted != Audit.FIXED):
        raise DeviceError(ErrorCode.INVALID_DATA)
    return Audit(wanted)


def _pairs(value: bytes) -> list[tuple[int, int]]:
    if len(value) % 2:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    return list(zip(value[::2], value[1::2], strict=True))
