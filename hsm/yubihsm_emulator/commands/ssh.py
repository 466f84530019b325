"""Signing SSH certificates within what a template allows."""

from typing import Final

from yubihsm_emulator.codes import Capability, Command, ObjectType
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import rsa, ssh
from yubihsm_emulator.objects import algorithm
from yubihsm_emulator.request import Request
from yubihsm_emulator.spec import Spec, field


def sign_certificate(request: Request) -> bytes:
    """
    0        2          4           5         9
    ┌────────┬──────────┬───────────┬─────────┬───────────────────────────────────┬─────────────────────┐
    │ key id │ template │ algorithm │ now u32 │ signature of the timestamp key    │ certificate without │
    │ u16    │ id u16   │ u8        │         │ [as long as its modulus]          │ its signature       │
    └────────┴──────────┴───────────┴─────────┴───────────────────────────────────┴─────────────────────┘
    """
    reader = request.reader()
    key = request.use(ObjectType.ASYMMETRIC_KEY, reader.u16(), Capability.SIGN_SSH_CERTIFICATE)
    stored = request.find(ObjectType.TEMPLATE, reader.u16())
    if not rsa.is_rsa(key.algorithm):
        raise DeviceError(ErrorCode.INVALID_DATA)
    chosen, now = algorithm(reader.u8()), reader.u32()
    request.enabled(stored.algorithm)
    request.enabled(chosen)
    template = ssh.Template.parse(stored.material)
    signature, certificate = reader.take(len(template.modulus)), reader.rest()
    asked = ssh.Request.parse(certificate)
    if not template.vouched(certificate, now, signature) or not template.allows(asked, key.id, now):
        raise DeviceError(ErrorCode.SSH_CA_CONSTRAINT_VIOLATION)
    return ssh.sign(key.material, chosen, certificate)


COMMANDS: Final = {
    Command.SIGN_SSH_CERTIFICATE: Spec(sign_certificate, Capability.SIGN_SSH_CERTIFICATE, field(0), field(2)),
}
