"""Authentication keys: what sessions are opened with."""

import dataclasses
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from yubihsm_emulator.codes import Algorithm, Capability, Command, ObjectType, Origin
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.objects import Header, algorithm
from yubihsm_emulator.request import Request
from yubihsm_emulator.spec import NEW, Spec, field

_SIZES: Final = {Algorithm.AES128_YUBICO_AUTHENTICATION: 32, Algorithm.EC_P256_YUBICO_AUTHENTICATION: 64}


def put_authentication_key(request: Request) -> bytes:
    """Header with delegated capabilities ‖ K-ENC ‖ K-MAC, or ‖ X ‖ Y."""
    reader = request.reader()
    header = Header.read(reader, delegating=True)
    material = reader.rest()
    _check(header.algorithm, material)
    return request.create(ObjectType.AUTHENTICATION_KEY, header, lambda: material, Origin.IMPORTED)


def change_authentication_key(request: Request) -> bytes:
    """id u16 ‖ algorithm u8 ‖ new key. Only a session's own key; the session itself goes on."""
    reader = request.reader()
    key_id, number, material = reader.u16(), reader.u8(), reader.rest()
    changed = algorithm(number)
    if key_id != request.session.key_id:
        raise DeviceError(ErrorCode.INVALID_ID)
    _check(changed, material)
    request.enabled(changed)
    one = request.find(ObjectType.AUTHENTICATION_KEY, key_id)
    request.device.store.replace(dataclasses.replace(one, algorithm=changed, material=material))
    return key_id.to_bytes(2, "big")


def _check(kind: Algorithm, material: bytes) -> None:
    if kind not in _SIZES:
        raise DeviceError(ErrorCode.INVALID_DATA)
    if len(material) != _SIZES[kind]:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    if kind is Algorithm.EC_P256_YUBICO_AUTHENTICATION:
        try:
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + material)
        except ValueError:
            raise DeviceError(ErrorCode.INVALID_DATA) from None


COMMANDS: Final = {
    Command.PUT_AUTHENTICATION_KEY: Spec(put_authentication_key, Capability.PUT_AUTHENTICATION_KEY, NEW),
    Command.CHANGE_AUTHENTICATION_KEY: Spec(change_authentication_key, Capability.CHANGE_AUTHENTICATION_KEY, field(0)),
}
