"""HMAC keys: sign and verify."""

from functools import partial
from typing import Final

from yubihsm_emulator.codes import Capability, Command, ObjectType, Origin
from yubihsm_emulator.material import hmac_key
from yubihsm_emulator.objects import Header
from yubihsm_emulator.request import Request
from yubihsm_emulator.spec import NEW, Spec, field


def put(request: Request) -> bytes:
    reader = request.reader()
    header = Header.read(reader)
    key = reader.rest()
    make = partial(hmac_key.from_key, header.algorithm, key)
    return request.create(ObjectType.HMAC_KEY, header, make, Origin.IMPORTED)


def generate(request: Request) -> bytes:
    reader = request.reader()
    header = Header.read(reader)
    reader.end()
    make = partial(hmac_key.generate, header.algorithm)
    return request.create(ObjectType.HMAC_KEY, header, make, Origin.GENERATED)


def sign(request: Request) -> bytes:
    reader = request.reader()
    one = request.use(ObjectType.HMAC_KEY, reader.u16(), Capability.SIGN_HMAC)
    return hmac_key.sign(one.algorithm, one.material, reader.rest())


def verify(request: Request) -> bytes:
    """One byte: 1 if the MAC is right, else 0."""
    reader = request.reader()
    one = request.use(ObjectType.HMAC_KEY, reader.u16(), Capability.VERIFY_HMAC)
    mac = reader.take(hmac_key.mac_size(one.algorithm))
    return bytes((hmac_key.verify(one.algorithm, one.material, mac, reader.rest()),))


COMMANDS: Final = {
    Command.PUT_HMAC_KEY: Spec(put, Capability.PUT_HMAC_KEY, NEW),
    Command.GENERATE_HMAC_KEY: Spec(generate, Capability.GENERATE_HMAC_KEY, NEW),
    Command.SIGN_HMAC: Spec(sign, Capability.SIGN_HMAC, field(0)),
    Command.VERIFY_HMAC: Spec(verify, Capability.VERIFY_HMAC, field(0)),
}
