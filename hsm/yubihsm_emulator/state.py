"""A device as bytes, all that survives the loss of power. Nothing of it is encrypted."""

import hashlib
from typing import Final

from yubihsm_emulator.codes import ObjectType
from yubihsm_emulator.device import Clock, Device, Random
from yubihsm_emulator.errors import DeviceError
from yubihsm_emulator.log import DIGEST_SIZE, AuditLog, Entry
from yubihsm_emulator.objects import Header, StoredObject, algorithm, object_type
from yubihsm_emulator.options import Audit, Options
from yubihsm_emulator.reader import Reader
from yubihsm_emulator.store import ObjectStore

MAGIC: Final = b"YHSMEMU\x01"
"""The last byte is the version of the format."""

_SUM_SIZE: Final = 32
_SCALAR_SIZE: Final = 32


class StateError(ValueError):
    """These bytes are no device (of a version known here), or have been damaged."""


def pack(device: Device) -> bytes:
    """
        ┌───────────┬────────────┬───────────┬────────────┬─────────┬─────┬─────────┬─────────┬─────────┐
        │ magic [8] │ serial u32 │ static    │ attestat.  │ options │ log │ written │ objects │ SHA-256 │
        │           │            │ key [32]  │ key [32]   │         │     │         │         │         │
        └───────────┴────────────┴───────────┴────────────┴─────────┴─────┴─────────┴─────────┴─────────┘
        options  force audit u8 ‖ n u16 ‖ n times (command u8 ‖ setting u8) ‖ m u16 ‖ m times disabled algorithm u8
        log      number u16 ‖ digest [16] ‖ unlogged boots u16 ‖ unlogged logins u16 ‖ n u8 ‖ n times entry [32]
        written  n u32 ‖ n times (type u8 ‖ id u16 ‖ count u32)
        objects  n u16 ‖ n times (type u8 ‖ header with delegated [61] ‖ sequence u8 ‖ origin u8 ‖ size u16 ‖ material)

    The SHA-256 is of all before it.
    """
    head = MAGIC + device.serial.to_bytes(4, "big") + device.static_key + device.attestation_key
    packed = head + _pack_options(device.options) + _pack_log(device.log) + _pack_store(device.store)
    return packed + hashlib.sha256(packed).digest()


def unpack(data: bytes, *, clock: Clock, random: Random) -> Device:
    """The device, as it was; its power has not come back yet (`Device.boot`). `StateError`."""
    packed, told = data[:-_SUM_SIZE], data[-_SUM_SIZE:]
    if not packed.startswith(MAGIC[:-1]):
        raise StateError("this is no state of a YubiHSM emulator")
    if packed[: len(MAGIC)] != MAGIC:
        raise StateError(f"the state has version {packed[len(MAGIC) - 1 : len(MAGIC)].hex()}, this program knows 01")
    if hashlib.sha256(packed).digest() != told:
        raise StateError("the state is damaged: its checksum is wrong")
    reader = Reader(packed[len(MAGIC) :])
    try:
        device = Device(reader.u32(), clock=clock, random=random)
        device.static_key, device.attestation_key = reader.take(_SCALAR_SIZE), reader.take(_SCALAR_SIZE)
        device.options, device.log, device.store = _options(reader), _log(reader), _store(reader)
        reader.end()
    except (DeviceError, ValueError) as error:
        raise StateError(f"the state is damaged: {error}") from error
    return device


def _pack_options(options: Options) -> bytes:
    pairs = options.command_audit_pairs()
    disabled = bytes(sorted(options.disabled))
    return (
        bytes((options.force_audit,))
        + (len(pairs) // 2).to_bytes(2, "big")
        + pairs
        + len(disabled).to_bytes(2, "big")
        + disabled
    )


def _options(reader: Reader) -> Options:
    options = Options()
    options.force_audit = Audit(reader.u8())
    for _ in range(reader.u16()):
        command = reader.u8()
        options.command_audit[command] = Audit(reader.u8())
    options.disabled = {algorithm(reader.u8()) for _ in range(reader.u16())}
    return options


def _pack_log(log: AuditLog) -> bytes:
    numbers = (log.unlogged_boots, log.unlogged_logins)
    head = log.number.to_bytes(2, "big") + log.digest + b"".join(number.to_bytes(2, "big") for number in numbers)
    return head + bytes((len(log),)) + b"".join(entry.raw for entry in log)


def _log(reader: Reader) -> AuditLog:
    number, digest = reader.u16(), reader.take(DIGEST_SIZE)
    unlogged = (reader.u16(), reader.u16())
    entries = [Entry(reader.take(16), reader.take(DIGEST_SIZE)) for _ in range(reader.u8())]
    return AuditLog(number, digest, entries, unlogged)


def _pack_store(store: ObjectStore) -> bytes:
    written = [
        bytes((kind,)) + object_id.to_bytes(2, "big") + count.to_bytes(4, "big")
        for (kind, object_id), count in store.written.items()
    ]
    objects = [
        bytes((one.type,)) + Header.of(one).pack()
        + bytes((one.sequence, one.origin)) + len(one.material).to_bytes(2, "big") + one.material
        for one in store
    ]  # fmt: skip
    return len(written).to_bytes(4, "big") + b"".join((*written, len(objects).to_bytes(2, "big"), *objects))


def _store(reader: Reader) -> ObjectStore:
    store = ObjectStore()
    for _ in range(reader.u32()):
        key = (object_type(reader.u8()), reader.u16())
        store.written[key] = reader.u32()
    for _ in range(reader.u16()):
        store.restore(_object(reader, object_type(reader.u8())))
    return store


def _object(reader: Reader, kind: ObjectType) -> StoredObject:
    header = Header.read(reader, delegating=True)
    sequence, origin = reader.u8(), reader.u8()
    material = reader.take(reader.u16())
    return header.stored(kind, sequence, origin, material)
