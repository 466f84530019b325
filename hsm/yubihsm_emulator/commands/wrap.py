"""Wrap keys: made, wrapping data, exporting and importing objects under AES-CCM."""

import dataclasses
from typing import Final

from yubihsm_emulator.codes import Capability, Command, ObjectType, Origin
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import ccm, rsa
from yubihsm_emulator.material.wrapping import WrappedObject
from yubihsm_emulator.objects import Header, StoredObject, object_type
from yubihsm_emulator.request import Request
from yubihsm_emulator.spec import NEW, KeyOf, Spec, answered, field

_DATA: Final = b"\x00"
"""Stands before wrapped data, where wrapped objects have the algorithm of their wrap key."""
_WITH_SEED: Final = 1


def put(request: Request) -> bytes:
    reader = request.reader()
    header = Header.read(reader, delegating=True)
    key = reader.rest()

    def make() -> bytes:
        if rsa.is_rsa(header.algorithm):
            return rsa.from_primes(header.algorithm, key)
        if len(key) != ccm.key_size(header.algorithm):
            raise DeviceError(ErrorCode.WRONG_LENGTH)
        return key

    return request.create(ObjectType.WRAP_KEY, header, make, Origin.IMPORTED)


def generate(request: Request) -> bytes:
    reader = request.reader()
    header = Header.read(reader, delegating=True)
    reader.end()

    def make() -> bytes:
        return rsa.generate(header.algorithm) if rsa.is_rsa(header.algorithm) else ccm.generate(header.algorithm)

    return request.create(ObjectType.WRAP_KEY, header, make, Origin.GENERATED)


def wrap_data(request: Request) -> bytes:
    reader = request.reader()
    key = _ccm_key(request, reader.u16())
    # Firmware before 2.5 says INVALID DATA where the key may not.
    request.permit(key, Capability.WRAP_DATA, ErrorCode.INVALID_DATA)
    data = reader.rest()
    if not data:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    return ccm.seal(key.material, _DATA + data)


def unwrap_data(request: Request) -> bytes:
    reader = request.reader()
    key = _ccm_key(request, reader.u16())
    request.permit(key, Capability.UNWRAP_DATA, ErrorCode.INVALID_DATA)
    plaintext = ccm.open_blob(key.material, reader.rest())
    if plaintext[:1] != _DATA:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return plaintext[1:]


def export_wrapped(request: Request) -> bytes:
    reader = request.reader()
    key = _ccm_key(request, reader.u16())
    request.permit(key, Capability.EXPORT_WRAPPED)
    kind, object_id = object_type(reader.u8()), reader.u16()
    with_seed = reader.u8() if reader.remaining else 0
    reader.end()
    if with_seed not in {0, _WITH_SEED}:
        raise DeviceError(ErrorCode.INVALID_DATA)
    wrapped = WrappedObject(key.algorithm, exportable(request, key, kind, object_id))
    return ccm.seal(key.material, (wrapped if with_seed else wrapped.without_seed()).pack())


def import_wrapped(request: Request) -> bytes:
    reader = request.reader()
    key = _ccm_key(request, reader.u16())
    request.permit(key, Capability.IMPORT_WRAPPED)
    return take_in(request, key, ccm.open_blob(key.material, reader.rest()))


def exportable(request: Request, key: StoredObject, kind: ObjectType, object_id: int) -> StoredObject:
    """The object, if this wrap key may carry it out: OBJECT NOT FOUND, INSUFFICIENT PERMISSIONS."""
    one = request.use(kind, object_id, Capability.EXPORTABLE_UNDER_WRAP)
    if one.capabilities & ~key.delegated:
        raise DeviceError(ErrorCode.INSUFFICIENT_PERMISSIONS)
    return one


def take_in(request: Request, key: StoredObject, plaintext: bytes) -> bytes:
    """Keeps the object in the plaintext of a blob that this wrap key opened, and answers its type and id."""
    wrapped = WrappedObject.parse(plaintext)
    if wrapped.wrap_algorithm != key.algorithm:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return keep_imported(request, key, wrapped.content)


def keep_imported(request: Request, key: StoredObject, one: StoredObject) -> bytes:
    """Keeps an object that came under this wrap key, and answers its type (u8) and id (u16).

    INSUFFICIENT PERMISSIONS if it can do more than the key may give, or would be in no domain; OBJECT EXISTS.
    """
    domains = one.domains & key.domains
    if one.capabilities & ~key.delegated or not domains:
        raise DeviceError(ErrorCode.INSUFFICIENT_PERMISSIONS)
    request.enabled(one.algorithm)
    kept = request.keep(dataclasses.replace(one, domains=domains, origin=one.origin | Origin.WRAPPED))
    return bytes((kept.type,)) + kept.id.to_bytes(2, "big")


def _ccm_key(request: Request, object_id: int) -> StoredObject:
    """A wrap key of AES; INVALID DATA for one of RSA, whatever its capabilities."""
    key = request.find(ObjectType.WRAP_KEY, object_id)
    if not ccm.is_ccm(key.algorithm):
        raise DeviceError(ErrorCode.INVALID_DATA)
    return key


EXPORTED: Final[KeyOf] = field(3)
IMPORTED: Final[KeyOf] = answered(1)

COMMANDS: Final = {
    Command.PUT_WRAP_KEY: Spec(put, Capability.PUT_WRAP_KEY, NEW),
    Command.GENERATE_WRAP_KEY: Spec(generate, Capability.GENERATE_WRAP_KEY, NEW),
    Command.WRAP_DATA: Spec(wrap_data, Capability.WRAP_DATA, field(0)),
    Command.UNWRAP_DATA: Spec(unwrap_data, Capability.UNWRAP_DATA, field(0)),
    Command.EXPORT_WRAPPED: Spec(export_wrapped, Capability.EXPORT_WRAPPED, field(0), EXPORTED),
    Command.IMPORT_WRAPPED: Spec(import_wrapped, Capability.IMPORT_WRAPPED, field(0), IMPORTED),
}
