"""Asymmetric keys: made, read out (public part), signed with, decrypted with, agreed with."""

from functools import partial
from typing import Final

from yubihsm_emulator.codes import Algorithm, Capability, Command, ObjectType, Origin
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import digests, ec, eddsa, keypairs, rsa
from yubihsm_emulator.objects import Header, StoredObject, algorithm, object_type
from yubihsm_emulator.request import Request
from yubihsm_emulator.spec import NEW, Spec, field

_ECDSA_LENGTHS: Final = frozenset({20, 28, 32, 48, 64, 66})
_ECDSA: Final = {
    20: Algorithm.EC_ECDSA_SHA1,
    32: Algorithm.EC_ECDSA_SHA256,
    48: Algorithm.EC_ECDSA_SHA384,
    64: Algorithm.EC_ECDSA_SHA512,
}


def put(request: Request) -> bytes:
    reader = request.reader()
    header = Header.read(reader)
    private = reader.rest()
    make = partial(keypairs.from_private, header.algorithm, private)
    return request.create(ObjectType.ASYMMETRIC_KEY, header, make, Origin.IMPORTED)


def generate(request: Request) -> bytes:
    reader = request.reader()
    header = Header.read(reader)
    reader.end()
    make = partial(keypairs.generate, header.algorithm)
    return request.create(ObjectType.ASYMMETRIC_KEY, header, make, Origin.GENERATED)


def get_public_key(request: Request) -> bytes:
    """Of an asymmetric key; with a type behind the id also of an RSA wrap key or a public wrap key."""
    reader = request.reader()
    object_id = reader.u16()
    kind = object_type(reader.u8()) if reader.remaining else ObjectType.ASYMMETRIC_KEY
    reader.end()
    if kind is ObjectType.PUBLIC_WRAP_KEY:
        one = request.find(kind, object_id)
        return bytes((one.algorithm,)) + one.material
    if kind not in {ObjectType.ASYMMETRIC_KEY, ObjectType.WRAP_KEY}:
        raise DeviceError(ErrorCode.INVALID_DATA)
    one = request.find(kind, object_id)
    if kind is ObjectType.WRAP_KEY and not rsa.is_rsa(one.algorithm):
        raise DeviceError(ErrorCode.INVALID_DATA)
    return bytes((one.algorithm,)) + keypairs.public(one.algorithm, one.material)


def sign_pkcs1(request: Request) -> bytes:
    reader = request.reader()
    key = _rsa_key(request, reader.u16(), Capability.SIGN_PKCS)
    digest = reader.rest()
    if digests.is_digest_length(len(digest)):
        request.enabled(digests.variant(Algorithm.RSA_PKCS1_SHA1, len(digest)))
    return rsa.sign_pkcs1(key.material, digest)


def sign_pss(request: Request) -> bytes:
    reader = request.reader()
    key = _rsa_key(request, reader.u16(), Capability.SIGN_PSS)
    mgf, salt_length, digest = algorithm(reader.u8()), reader.u16(), reader.rest()
    request.enabled(digests.variant(Algorithm.RSA_PSS_SHA1, len(digest)))
    request.enabled(mgf)
    return rsa.sign_pss(key.material, digest, salt_length, digests.mgf1_hash(mgf))


def decrypt_pkcs1(request: Request) -> bytes:
    reader = request.reader()
    key = _rsa_key(request, reader.u16(), Capability.DECRYPT_PKCS)
    request.enabled(Algorithm.RSA_PKCS1_DECRYPT)
    return rsa.decrypt_pkcs1(key.material, reader.rest())


def decrypt_oaep(request: Request) -> bytes:
    reader = request.reader()
    key = _rsa_key(request, reader.u16(), Capability.DECRYPT_OAEP)
    mgf = algorithm(reader.u8())
    ciphertext, label_digest = reader.take(rsa.modulus_size(key.algorithm)), reader.rest()
    request.enabled(digests.variant(Algorithm.RSA_OAEP_SHA1, len(label_digest)))
    request.enabled(mgf)
    return rsa.decrypt_oaep(key.material, ciphertext, label_digest, digests.mgf1_hash(mgf))


def sign_ecdsa(request: Request) -> bytes:
    reader = request.reader()
    key = _ec_key(request, reader.u16(), Capability.SIGN_ECDSA)
    digest = reader.rest()
    if len(digest) not in _ECDSA_LENGTHS:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    if len(digest) in _ECDSA:
        request.enabled(_ECDSA[len(digest)])
    return ec.sign(key.algorithm, key.material, digest)


def derive_ecdh(request: Request) -> bytes:
    reader = request.reader()
    key = _ec_key(request, reader.u16(), Capability.DERIVE_ECDH)
    request.enabled(Algorithm.EC_ECDH)
    return ec.derive(key.algorithm, key.material, reader.rest())


def sign_eddsa(request: Request) -> bytes:
    reader = request.reader()
    key = request.use(ObjectType.ASYMMETRIC_KEY, reader.u16(), Capability.SIGN_EDDSA)
    if key.algorithm != Algorithm.EC_ED25519:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return eddsa.sign(key.material, reader.rest())


def _rsa_key(request: Request, object_id: int, capability: Capability) -> StoredObject:
    key = request.use(ObjectType.ASYMMETRIC_KEY, object_id, capability)
    if not rsa.is_rsa(key.algorithm):
        raise DeviceError(ErrorCode.INVALID_DATA)
    return key


def _ec_key(request: Request, object_id: int, capability: Capability) -> StoredObject:
    key = request.use(ObjectType.ASYMMETRIC_KEY, object_id, capability)
    if not ec.is_ec(key.algorithm):
        raise DeviceError(ErrorCode.INVALID_DATA)
    return key


COMMANDS: Final = {
    Command.PUT_ASYMMETRIC_KEY: Spec(put, Capability.PUT_ASYMMETRIC_KEY, NEW),
    Command.GENERATE_ASYMMETRIC_KEY: Spec(generate, Capability.GENERATE_ASYMMETRIC_KEY, NEW),
    Command.GET_PUBLIC_KEY: Spec(get_public_key, target=field(0)),
    Command.SIGN_PKCS1: Spec(sign_pkcs1, Capability.SIGN_PKCS, field(0)),
    Command.SIGN_PSS: Spec(sign_pss, Capability.SIGN_PSS, field(0)),
    Command.SIGN_ECDSA: Spec(sign_ecdsa, Capability.SIGN_ECDSA, field(0)),
    Command.SIGN_EDDSA: Spec(sign_eddsa, Capability.SIGN_EDDSA, field(0)),
    Command.DECRYPT_PKCS1: Spec(decrypt_pkcs1, Capability.DECRYPT_PKCS, field(0)),
    Command.DECRYPT_OAEP: Spec(decrypt_oaep, Capability.DECRYPT_OAEP, field(0)),
    Command.DERIVE_ECDH: Spec(derive_ecdh, Capability.DERIVE_ECDH, field(0)),
}
