"""Symmetric keys: AES-ECB and AES-CBC over whole blocks."""

from functools import partial
from typing import Final

from yubihsm_emulator.codes import Algorithm, Capability, Command, ObjectType, Origin
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import aes
from yubihsm_emulator.objects import Header
from yubihsm_emulator.request import Request
from yubihsm_emulator.spec import NEW, Spec, field


def put(request: Request) -> bytes:
    reader = request.reader()
    header = Header.read(reader)
    key = reader.rest()
    if len(key) != aes.key_size(header.algorithm):
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    return request.create(ObjectType.SYMMETRIC_KEY, header, lambda: key, Origin.IMPORTED)


def generate(request: Request) -> bytes:
    reader = request.reader()
    header = Header.read(reader)
    reader.end()
    make = partial(aes.generate, header.algorithm)
    return request.create(ObjectType.SYMMETRIC_KEY, header, make, Origin.GENERATED)


def encrypt_ecb(request: Request) -> bytes:
    key, _, blocks = _asked(request, Capability.ENCRYPT_ECB, Algorithm.AES_ECB)
    return aes.encrypt_ecb(key, blocks)


def decrypt_ecb(request: Request) -> bytes:
    key, _, blocks = _asked(request, Capability.DECRYPT_ECB, Algorithm.AES_ECB)
    return aes.decrypt_ecb(key, blocks)


def encrypt_cbc(request: Request) -> bytes:
    key, iv, blocks = _asked(request, Capability.ENCRYPT_CBC, Algorithm.AES_CBC)
    return aes.encrypt_cbc(key, iv, blocks)


def decrypt_cbc(request: Request) -> bytes:
    key, iv, blocks = _asked(request, Capability.DECRYPT_CBC, Algorithm.AES_CBC)
    return aes.decrypt_cbc(key, iv, blocks)


def _asked(request: Request, capability: Capability, mode: Algorithm) -> tuple[bytes, bytes, bytes]:
    """Key, initialisation vector (none for ECB) and blocks of a request."""
    reader = request.reader()
    one = request.use(ObjectType.SYMMETRIC_KEY, reader.u16(), capability)
    request.enabled(mode)
    iv = reader.take(aes.BLOCK) if mode is Algorithm.AES_CBC else b""
    return one.material, iv, reader.rest()


COMMANDS: Final = {
    Command.PUT_SYMMETRIC_KEY: Spec(put, Capability.PUT_SYMMETRIC_KEY, NEW),
    Command.GENERATE_SYMMETRIC_KEY: Spec(generate, Capability.GENERATE_SYMMETRIC_KEY, NEW),
    Command.ENCRYPT_ECB: Spec(encrypt_ecb, Capability.ENCRYPT_ECB, field(0)),
    Command.DECRYPT_ECB: Spec(decrypt_ecb, Capability.DECRYPT_ECB, field(0)),
    Command.ENCRYPT_CBC: Spec(encrypt_cbc, Capability.ENCRYPT_CBC, field(0)),
    Command.DECRYPT_CBC: Spec(decrypt_cbc, Capability.DECRYPT_CBC, field(0)),
}
