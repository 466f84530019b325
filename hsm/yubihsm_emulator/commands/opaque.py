"""Opaque objects and templates: bytes the device only keeps."""

from typing import Final

from yubihsm_emulator.codes import Algorithm, Capability, Command, ObjectType, Origin
from yubihsm_emulator.commands import attestation
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.objects import Header
from yubihsm_emulator.request import Request
from yubihsm_emulator.spec import NEW, Spec, field

_SUITS: Final = {
    ObjectType.OPAQUE: {Algorithm.OPAQUE_DATA, Algorithm.OPAQUE_X509_CERTIFICATE},
    ObjectType.TEMPLATE: {Algorithm.TEMPLATE_SSH},
}


def put_opaque(request: Request) -> bytes:
    return _put(request, ObjectType.OPAQUE)


def get_opaque(request: Request) -> bytes:
    """Id 0 is the certificate of the built-in attestation key."""
    if request.data == attestation.BUILT_IN.to_bytes(2, "big"):
        return attestation.certificate(request.device)
    return _get(request, ObjectType.OPAQUE)


def put_template(request: Request) -> bytes:
    return _put(request, ObjectType.TEMPLATE)


def get_template(request: Request) -> bytes:
    return _get(request, ObjectType.TEMPLATE)


def _put(request: Request, kind: ObjectType) -> bytes:
    reader = request.reader()
    header = Header.read(reader)
    data = reader.rest()
    if header.algorithm not in _SUITS[kind]:
        raise DeviceError(ErrorCode.INVALID_DATA)
    if not data:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    return request.create(kind, header, lambda: data, Origin.IMPORTED)


def _get(request: Request, kind: ObjectType) -> bytes:
    reader = request.reader()
    object_id = reader.u16()
    reader.end()
    one = request.find(kind, object_id)
    request.enabled(one.algorithm)
    return one.material


COMMANDS: Final = {
    Command.PUT_OPAQUE: Spec(put_opaque, Capability.PUT_OPAQUE, NEW),
    Command.GET_OPAQUE: Spec(get_opaque, Capability.GET_OPAQUE, field(0)),
    Command.PUT_TEMPLATE: Spec(put_template, Capability.PUT_TEMPLATE, NEW),
    Command.GET_TEMPLATE: Spec(get_template, Capability.GET_TEMPLATE, field(0)),
}
