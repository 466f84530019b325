"""Public wrap keys, and objects exported and imported under RSA-AES key wrap: whole, or only their key."""

from dataclasses import dataclass
from functools import partial
from typing import Final

from yubihsm_emulator.codes import Algorithm, Capability, Command, ObjectType, Origin
from yubihsm_emulator.commands import wrap
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import digests, keypairs, rsa, rsa_wrap, wrapping
from yubihsm_emulator.objects import Header, StoredObject, algorithm, object_type
from yubihsm_emulator.reader import Reader
from yubihsm_emulator.request import Request
from yubihsm_emulator.spec import NEW, Spec, field

_KEYS: Final = frozenset({ObjectType.ASYMMETRIC_KEY, ObjectType.SYMMETRIC_KEY})
"""Types whose bare key can travel."""


def put_public_wrap_key(request: Request) -> bytes:
    reader = request.reader()
    header = Header.read(reader, delegating=True)
    modulus = reader.rest()
    if len(modulus) != rsa.modulus_size(header.algorithm):
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    make = partial(rsa.from_modulus, header.algorithm, modulus)
    return request.create(ObjectType.PUBLIC_WRAP_KEY, header, make, Origin.IMPORTED)


def get_key(request: Request) -> bytes:
    """Only the key: PKCS#8 of an asymmetric key, the bytes of a symmetric one."""
    export = _Export.read(request)
    one = export.content
    if one.type not in _KEYS:
        raise DeviceError(ErrorCode.INVALID_DATA)
    is_pair = one.type is ObjectType.ASYMMETRIC_KEY
    return export.seal(keypairs.to_pkcs8(one.algorithm, one.material) if is_pair else one.material)


def export_object(request: Request) -> bytes:
    """The object with all it has."""
    export = _Export.read(request)
    return export.seal(wrapping.WrappedObject(export.key.algorithm, export.content).pack())


def put_key(request: Request) -> bytes:
    """A bare key becomes an object with the properties in the request; the device calls it imported under wrap."""
    reader = request.reader()
    key = _private_key(request, reader.u16())
    kind, header = object_type(reader.u8()), Header.read(reader)
    padding = _padding_behind(reader, request)
    if kind not in _KEYS:
        raise DeviceError(ErrorCode.INVALID_DATA)
    plaintext = rsa_wrap.open_blob(key.material, reader.rest(), padding)
    if kind is ObjectType.ASYMMETRIC_KEY:
        material = keypairs.from_pkcs8(header.algorithm, plaintext)
    else:
        material = wrapping.checked(kind, header.algorithm, plaintext)
    one = header.stored(kind, 0, Origin.IMPORTED, material)
    return wrap.keep_imported(request, key, one)


def import_object(request: Request) -> bytes:
    reader = request.reader()
    key = _private_key(request, reader.u16())
    padding = _padding_behind(reader, request)
    return wrap.take_in(request, key, rsa_wrap.open_blob(key.material, reader.rest(), padding))


@dataclass(frozen=True, slots=True)
class _Export:
    """What both exports ask for, laid out alike.

    0            2         3        5            6             7             8
    ┌────────────┬─────────┬────────┬────────────┬─────────────┬─────────────┬──────────────────────┐
    │ public     │ type u8 │ id u16 │ aes        │ oaep        │ mgf1        │ label digest         │
    │ wrap key   │         │        │ algorithm  │ algorithm   │ algorithm   │ [20, 32, 48 or 64]   │
    └────────────┴─────────┴────────┴────────────┴─────────────┴─────────────┴──────────────────────┘
    """

    key: StoredObject
    content: StoredObject
    aes_algorithm: Algorithm
    padding: rsa_wrap.Padding

    @classmethod
    def read(cls, request: Request) -> "_Export":
        reader = request.reader()
        key = request.use(ObjectType.PUBLIC_WRAP_KEY, reader.u16(), Capability.EXPORT_WRAPPED)
        one = wrap.exportable(request, key, object_type(reader.u8()), reader.u16())
        aes_algorithm = algorithm(reader.u8())
        request.enabled(aes_algorithm)
        padding = _padding_behind(reader, request)
        reader.end()
        return cls(key, one, aes_algorithm, padding)

    def seal(self, plaintext: bytes) -> bytes:
        return rsa_wrap.seal(self.key.material, plaintext, self.aes_algorithm, self.padding)


def _private_key(request: Request, object_id: int) -> StoredObject:
    """A wrap key of RSA; INVALID DATA for one of AES, whatever its capabilities."""
    key = request.find(ObjectType.WRAP_KEY, object_id)
    if not rsa.is_rsa(key.algorithm):
        raise DeviceError(ErrorCode.INVALID_DATA)
    request.permit(key, Capability.IMPORT_WRAPPED)
    return key


def _padding_behind(reader: Reader, request: Request) -> rsa_wrap.Padding:
    """OAEP and MGF1 algorithm (u8 each), and the label digest at the very end of the request."""
    oaep, mgf = algorithm(reader.u8()), algorithm(reader.u8())
    request.enabled(oaep)
    request.enabled(mgf)
    request.enabled(Algorithm.AES_KWP)
    label_digest = reader.tail(digests.oaep_hash(oaep).digest_size)
    return rsa_wrap.Padding(label_digest, digests.mgf1_hash(mgf))


COMMANDS: Final = {
    Command.PUT_PUBLIC_WRAP_KEY: Spec(put_public_wrap_key, Capability.PUT_PUBLIC_WRAP_KEY, NEW),
    Command.GET_RSA_WRAPPED_KEY: Spec(get_key, Capability.EXPORT_WRAPPED, field(0), wrap.EXPORTED),
    Command.PUT_RSA_WRAPPED_KEY: Spec(put_key, Capability.IMPORT_WRAPPED, field(0), wrap.IMPORTED),
    Command.EXPORT_RSA_WRAPPED: Spec(export_object, Capability.EXPORT_WRAPPED, field(0), wrap.EXPORTED),
    Command.IMPORT_RSA_WRAPPED: Spec(import_object, Capability.IMPORT_WRAPPED, field(0), wrap.IMPORTED),
}
