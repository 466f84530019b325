"""Keys for Yubico OTP: credentials sealed, sealed anew for another key, one-time passwords read."""

import os
from functools import partial
from typing import Final

from yubihsm_emulator.codes import Capability, Command, ObjectType, Origin
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import otp
from yubihsm_emulator.objects import Header
from yubihsm_emulator.request import Request
from yubihsm_emulator.spec import NEW, Spec, field

_CREDENTIAL: Final = otp.KEY_SIZE + otp.PRIVATE_ID


def put(request: Request) -> bytes:
    reader = request.reader()
    header = Header.read(reader)
    material = reader.take(otp.NONCE_ID) + reader.rest()
    if len(material) != otp.NONCE_ID + otp.key_size(header.algorithm):
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    return request.create(ObjectType.OTP_AEAD_KEY, header, lambda: material, Origin.IMPORTED)


def generate(request: Request) -> bytes:
    reader = request.reader()
    header = Header.read(reader)
    nonce_id = reader.take(otp.NONCE_ID)
    reader.end()
    make = partial(otp.generate, header.algorithm, nonce_id)
    return request.create(ObjectType.OTP_AEAD_KEY, header, make, Origin.GENERATED)


def create_aead(request: Request) -> bytes:
    reader = request.reader()
    key = request.use(ObjectType.OTP_AEAD_KEY, reader.u16(), Capability.CREATE_OTP_AEAD)
    credential = reader.take(_CREDENTIAL)
    reader.end()
    return otp.seal(key.material, credential)


def randomize_aead(request: Request) -> bytes:
    reader = request.reader()
    key = request.use(ObjectType.OTP_AEAD_KEY, reader.u16(), Capability.RANDOMIZE_OTP_AEAD)
    reader.end()
    return otp.seal(key.material, os.urandom(_CREDENTIAL))


def rewrap_aead(request: Request) -> bytes:
    reader = request.reader()
    request.need(Capability.REWRAP_TO_OTP_AEAD_KEY)
    before = request.use(ObjectType.OTP_AEAD_KEY, reader.u16(), Capability.REWRAP_FROM_OTP_AEAD_KEY)
    after = request.use(ObjectType.OTP_AEAD_KEY, reader.u16(), Capability.REWRAP_TO_OTP_AEAD_KEY)
    aead = reader.take(otp.AEAD_SIZE)
    reader.end()
    return otp.seal(after.material, otp.open_aead(before.material, aead))


def decrypt_otp(request: Request) -> bytes:
    reader = request.reader()
    key = request.use(ObjectType.OTP_AEAD_KEY, reader.u16(), Capability.DECRYPT_OTP)
    aead, one_time = reader.take(otp.AEAD_SIZE), reader.take(otp.OTP_SIZE)
    reader.end()
    return otp.decrypt(otp.open_aead(key.material, aead), one_time)


COMMANDS: Final = {
    Command.PUT_OTP_AEAD_KEY: Spec(put, Capability.PUT_OTP_AEAD_KEY, NEW),
    Command.GENERATE_OTP_AEAD_KEY: Spec(generate, Capability.GENERATE_OTP_AEAD_KEY, NEW),
    Command.CREATE_OTP_AEAD: Spec(create_aead, Capability.CREATE_OTP_AEAD, field(0)),
    Command.RANDOMIZE_OTP_AEAD: Spec(randomize_aead, Capability.RANDOMIZE_OTP_AEAD, field(0)),
    Command.REWRAP_OTP_AEAD: Spec(rewrap_aead, Capability.REWRAP_FROM_OTP_AEAD_KEY, field(0), field(2)),
    Command.DECRYPT_OTP: Spec(decrypt_otp, Capability.DECRYPT_OTP, field(0)),
}
