"""The audit log and the options."""

from collections.abc import Callable
from typing import Final

from yubihsm_emulator.codes import Capability, Command, Option
from yubihsm_emulator.device import DEFAULT_KEY, Device
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.request import Request
from yubihsm_emulator.spec import Spec


def get_log_entries(request: Request) -> bytes:
    """unlogged boots u16 ‖ unlogged logins u16 ‖ count u8 ‖ entries [32 each], oldest first."""
    request.reader().end()
    log = request.device.log
    head = log.unlogged_boots.to_bytes(2, "big") + log.unlogged_logins.to_bytes(2, "big") + bytes((len(log),))
    return head + b"".join(entry.raw for entry in log)


def set_log_index(request: Request) -> bytes:
    reader = request.reader()
    index = reader.u16()
    reader.end()
    if not request.device.log.discard(index):
        raise DeviceError(ErrorCode.INVALID_DATA)
    return b""


def set_option(request: Request) -> bytes:
    """option u8 ‖ length u16 ‖ value."""
    reader = request.reader()
    option, size = reader.u8(), reader.u16()
    value = reader.take(size)
    reader.end()
    device = request.device
    setters: dict[int, Callable[[bytes], None]] = {
        Option.FORCE_AUDIT: device.options.set_force_audit,
        Option.COMMAND_AUDIT: device.options.set_command_audit,
        Option.ALGORITHM_TOGGLE: device.options.set_algorithms,
    }
    if option not in setters or (option == Option.ALGORITHM_TOGGLE and not _fresh(device)):
        raise DeviceError(ErrorCode.INVALID_DATA)
    setters[option](value)
    return b""


def get_option(request: Request) -> bytes:
    reader = request.reader()
    option = reader.u8()
    reader.end()
    options = request.device.options
    match option:
        case Option.FORCE_AUDIT:
            return bytes((options.force_audit,))
        case Option.COMMAND_AUDIT:
            return options.command_audit_pairs()
        case Option.ALGORITHM_TOGGLE:
            return options.algorithm_pairs()
        case _:  # FIPS mode too: this is no FIPS device, and clients find that out by this answer
            raise DeviceError(ErrorCode.INVALID_DATA)


def _fresh(device: Device) -> bool:
    """Whether there is nothing but the default key, as after a reset."""
    return list(device.store) == [DEFAULT_KEY]


COMMANDS: Final = {
    Command.GET_LOG_ENTRIES: Spec(get_log_entries, Capability.GET_LOG_ENTRIES),
    Command.SET_LOG_INDEX: Spec(set_log_index, Capability.GET_LOG_ENTRIES),
    Command.SET_OPTION: Spec(set_option, Capability.SET_OPTION),
    Command.GET_OPTION: Spec(get_option, Capability.GET_OPTION),
}
