"""What a device says of itself, its random numbers, and its beginning anew."""

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from yubihsm_emulator.codes import Algorithm, Capability, Command
from yubihsm_emulator.device import PART_NUMBER, VERSION
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.handshake import encode_point
from yubihsm_emulator.log import CAPACITY
from yubihsm_emulator.objects import PAGE_SIZE
from yubihsm_emulator.request import Request
from yubihsm_emulator.spec import Spec
from yubihsm_emulator.store import MAX_OBJECTS, MAX_PAGES

MAX_RANDOM: Final = 3116
"""Random bytes that fit into one reply within a session."""


def echo(request: Request) -> bytes:
    return request.data


def device_info(request: Request) -> bytes:
    """Page 0 (also asked for by no data at all):

        0         3            7           8          9
        ┌─────────┬────────────┬───────────┬──────────┬────────────┐
        │ version │ serial u32 │ log total │ log used │ algorithms │
        └─────────┴────────────┴───────────┴──────────┴────────────┘

    Page 1: the part number in ASCII.
    """
    reader = request.reader()
    page = reader.u8() if reader.remaining else 0
    reader.end()
    if page == 1:
        return PART_NUMBER
    if page:
        raise DeviceError(ErrorCode.INVALID_DATA)
    device = request.device
    return VERSION + device.serial.to_bytes(4, "big") + bytes((CAPACITY, len(device.log), *Algorithm))


def get_device_public_key(request: Request) -> bytes:
    request.reader().end()
    scalar = int.from_bytes(request.device.static_key, "big")
    point = encode_point(ec.derive_private_key(scalar, ec.SECP256R1()).public_key())
    return bytes((Algorithm.EC_P256_YUBICO_AUTHENTICATION,)) + point[1:]


def get_storage_info(request: Request) -> bytes:
    """Records in all, free ones, pages in all, free ones, bytes of a page: u16 each."""
    request.reader().end()
    store = request.device.store
    figures = (MAX_OBJECTS, MAX_OBJECTS - len(store), MAX_PAGES, store.free_pages, PAGE_SIZE)
    return b"".join(figure.to_bytes(2, "big") for figure in figures)


def get_pseudo_random(request: Request) -> bytes:
    reader = request.reader()
    count = reader.u16()
    reader.end()
    if count > MAX_RANDOM:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return request.device.random(count)


def blink_device(request: Request) -> bytes:
    """There is no light; the seconds are only read."""
    reader = request.reader()
    reader.u8()
    reader.end()
    return b""


def agree_to(request: Request) -> bytes:
    """RESET DEVICE and CLOSE SESSION: the processor acts once the answer is sealed."""
    request.reader().end()
    return b""


COMMANDS: Final = {
    Command.ECHO: Spec(echo, in_clear=True),
    Command.DEVICE_INFO: Spec(device_info, in_clear=True),
    Command.GET_DEVICE_PUBLIC_KEY: Spec(get_device_public_key, in_clear=True),
    Command.RESET_DEVICE: Spec(agree_to, Capability.RESET_DEVICE),
    Command.CLOSE_SESSION: Spec(agree_to),
    Command.GET_STORAGE_INFO: Spec(get_storage_info),
    Command.GET_PSEUDO_RANDOM: Spec(get_pseudo_random, Capability.GET_PSEUDO_RANDOM),
    Command.BLINK_DEVICE: Spec(blink_device),
}
