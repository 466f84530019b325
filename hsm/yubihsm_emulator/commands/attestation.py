"""Attestation certificates: signed by a key of the user's, or by the one built into the device."""

from typing import Final

from yubihsm_emulator.codes import Algorithm, Capability, Command, ObjectType
from yubihsm_emulator.device import VERSION, Device
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import attestation
from yubihsm_emulator.request import Request
from yubihsm_emulator.spec import Spec, field

BUILT_IN: Final = 0
"""Stands for the device's own attestation key, and as opaque object for its certificate."""


def sign(request: Request) -> bytes:
    reader = request.reader()
    attested_id, signer_id = reader.u16(), reader.u16()
    reader.end()
    one = request.find(ObjectType.ASYMMETRIC_KEY, attested_id)
    signer, template = _signer(request, signer_id)
    public_key = attestation.private_key(one.algorithm, one.material).public_key()
    claim = attestation.Claim(one.id, one.origin, one.domains, one.capabilities, one.label, public_key)
    return attestation.attest(claim, signer, template, VERSION, request.device.serial)


def certificate(device: Device) -> bytes:
    """DER of the certificate of the built-in key."""
    return attestation.device_certificate(device.attestation_key, VERSION, device.serial)


def _signer(request: Request, object_id: int) -> tuple[attestation.SignerKey, bytes]:
    """The attesting key and the certificate to follow, an opaque object of the same id."""
    if object_id == BUILT_IN:
        return attestation.device_key(request.device.attestation_key), certificate(request.device)
    key = request.use(ObjectType.ASYMMETRIC_KEY, object_id, Capability.SIGN_ATTESTATION_CERTIFICATE)
    signer = attestation.private_key(key.algorithm, key.material)
    template = request.find(ObjectType.OPAQUE, object_id)
    if template.algorithm is not Algorithm.OPAQUE_X509_CERTIFICATE:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return signer, template.material


COMMANDS: Final = {
    Command.SIGN_ATTESTATION_CERTIFICATE: Spec(sign, Capability.SIGN_ATTESTATION_CERTIFICATE, field(0), field(2)),
}
