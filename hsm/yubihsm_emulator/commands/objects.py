"""What is true of objects of any type: listing, description, deletion."""

from typing import Final

from yubihsm_emulator.codes import Command
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.objects import DELETE, LABEL_SIZE, StoredObject, object_type
from yubihsm_emulator.request import Request
from yubihsm_emulator.spec import Spec, field
from yubihsm_emulator.store import Filters

_NUMBERS: Final = {1: ("id", 2), 2: ("type", 1), 3: ("domains", 2), 4: ("capabilities", 8), 5: ("algorithm", 1)}
_LABEL: Final = 6


def list_objects(request: Request) -> bytes:
    """Filters as tag ‖ value, in any order; the answer is a row of id u16 ‖ type u8 ‖ sequence u8."""
    reader = request.reader()
    numbers: dict[str, int] = {}
    label: bytes | None = None
    while reader.remaining:
        tag = reader.u8()
        if tag == _LABEL:
            label = reader.take(LABEL_SIZE)
        elif tag in _NUMBERS:
            name, size = _NUMBERS[tag]
            numbers[name] = reader.number(size)
        else:
            raise DeviceError(ErrorCode.INVALID_DATA)
    filters = Filters(label, **numbers)
    found = request.device.store.list(filters, request.session.domains)
    return b"".join(one.id.to_bytes(2, "big") + bytes((one.type, one.sequence)) for one in found)


def get_object_info(request: Request) -> bytes:
    """
    0        8    10       12        14     15          16         17       18           58          66
    ┌────────┬────┬────────┬─────────┬──────┬───────────┬──────────┬────────┬────────────┬───────────┐
    │ capab. │ id │ length │ domains │ type │ algorithm │ sequence │ origin │ label [40] │ delegated │
    └────────┴────┴────────┴─────────┴──────┴───────────┴──────────┴────────┴────────────┴───────────┘
    """
    one = _named(request)
    return b"".join((
        one.capabilities.to_bytes(8, "big"),
        one.id.to_bytes(2, "big"),
        one.length.to_bytes(2, "big"),
        one.domains.to_bytes(2, "big"),
        bytes((one.type, one.algorithm, one.sequence, one.origin)),
        one.label,
        one.delegated.to_bytes(8, "big"),
    ))  # fmt: skip


def delete_object(request: Request) -> bytes:
    one = _named(request)
    request.need(DELETE[one.type])
    request.device.store.delete(one)
    return b""


def _named(request: Request) -> StoredObject:
    """The object named by id u16 ‖ type u8."""
    reader = request.reader()
    object_id, kind = reader.u16(), reader.u8()
    reader.end()
    return request.find(object_type(kind), object_id)


COMMANDS: Final = {
    Command.LIST_OBJECTS: Spec(list_objects),
    Command.GET_OBJECT_INFO: Spec(get_object_info, target=field(0)),
    Command.DELETE_OBJECT: Spec(delete_object, target=field(0)),
}
