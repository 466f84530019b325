"""openk's objects on a YubiHSM: found by label, asserted, made, destroyed, counted, vouched for.

Making an object wears flash and takes one of 256 slots, so there is no import on demand, and a device that is nearly
full refuses with a word of its own before the flash does.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yubihsm.defs import ALGORITHM, CAPABILITY, COMMAND, LIST_FILTER, OBJECT, ORIGIN

from openk_hsm.errors import HsmError, TokenFull, Unsupported, Untrusted
from openk_hsm.seam import Algorithm, KeySpec, ObjectInfo
from openk_hsm.yubihsm import names
from openk_hsm.yubihsm.device import Device
from openk_hsm.yubihsm.kinds import ATTESTATION_NEEDS, KINDS, NAMES, Kind, capability_names

SPARE: Final = 2
"""Object slots that openk leaves: for an authentication key that replaces another, and a certificate."""
RSA_EXPONENT: Final = 65537
DEVICE_CERTIFICATE: Final = 0
"""The built-in attestation key, and the opaque object with its certificate."""
_INFO: Final = struct.Struct(">QHHHBBBB40sQ")
_TARGET: Final = struct.Struct(">HB")
_HEAD: Final = struct.Struct(">H40sHQB")
_STORAGE: Final = struct.Struct(">5H")
_KINDS: Final[dict[int, str]] = {
    OBJECT.OPAQUE: "data",
    OBJECT.AUTHENTICATION_KEY: "authentication",
    OBJECT.ASYMMETRIC_KEY: "private",
    OBJECT.TEMPLATE: "data",
}
_CURVES: Final[dict[int, type[ec.EllipticCurve]]] = {
    ALGORITHM.EC_P256: ec.SECP256R1,
    ALGORITHM.EC_P384: ec.SECP384R1,
    ALGORITHM.EC_P521: ec.SECP521R1,
}


@dataclass(frozen=True, slots=True)
class Found:
    """GET OBJECT INFO."""

    capabilities: int
    number: int
    length: int
    domains: int
    type: int
    algorithm: int
    sequence: int
    origin: int
    label: bytes
    delegated: int


@dataclass(frozen=True, slots=True)
class Room:
    """GET STORAGE INFO: objects and pages of 126 bytes."""

    objects: int
    objects_free: int
    pages_free: int


class Objects:
    """Those of one domain (1 to 16), seen through a session."""

    def __init__(self, device: Device, domain: int) -> None:
        self._device = device
        self._domains = 1 << (domain - 1)

    def named(self, label: str, id_: bytes) -> list[tuple[int, int]]:
        """(number, type) of every object of that name."""
        packed = names.pack(label, id_).ljust(names.LABEL_BYTES, b"\0")
        return self._list(bytes((LIST_FILTER.LABEL,)) + packed)

    def _list(self, filters: bytes = b"") -> list[tuple[int, int]]:
        answer = bytes(self._device.ask(COMMAND.LIST_OBJECTS, filters))
        if len(answer) % 4:
            raise HsmError("the device's list of objects has an impossible length")
        return [(number, type_) for number, type_, _ in struct.iter_unpack(">HBB", answer)]

    def describe(self, number: int, type_: int) -> Found:
        answer = self._device.ask(COMMAND.GET_OBJECT_INFO, _TARGET.pack(number, type_))
        return Found(*_exactly(_INFO, answer))

    def only(self, spec: KeySpec, label: str, id_: bytes) -> int | None:
        """The number of the one key of that name, asserted to be as openk makes it; None where there is none.
        Raises Untrusted."""
        found = self.named(label, id_)
        if not found:
            return None
        if len(found) > 1:
            raise Untrusted(f"the YubiHSM has {len(found)} objects named {label!r}: openk uses none of them")
        number, type_ = found[0]
        self._assert_ours(self.describe(number, type_), spec, label)
        return number

    def _assert_ours(self, found: Found, spec: KeySpec, label: str) -> None:
        kind = KINDS[spec]
        wrong: list[str] = []
        if (found.type, found.algorithm) != (kind.type, kind.algorithm):
            wrong.append("is of another type or algorithm")
        if found.capabilities != kind.capabilities:
            have = " ".join(capability_names(CAPABILITY(found.capabilities))) or "none"
            wrong.append(f"has other capabilities ({have})")
        if found.delegated:
            wrong.append("has delegated capabilities")
        if found.domains != self._domains:
            wrong.append("is in other domains")
        if found.origin != ORIGIN.GENERATED:
            wrong.append("was not made in the device")
        if wrong:
            raise Untrusted(f"the object {label!r} {', '.join(wrong)}: it is not what openk makes")

    def make(self, spec: KeySpec, label: str, id_: bytes) -> tuple[int, bytes | None]:
        """A new object: its number, and its public key. Raises TokenFull before the device is full, Untrusted where
        the name is taken."""
        kind = KINDS[spec]
        if kind.algorithm not in self._device.algorithms():
            raise Unsupported(f"{spec.algorithm.value} is switched off on this YubiHSM")
        if self.named(label, id_):
            raise Untrusted(f"the YubiHSM has an object named {label!r} already")
        self._require_room(kind)
        head = _HEAD.pack(0, names.pack(label, id_), self._domains, kind.capabilities, kind.algorithm)
        delegated = bytes(8) if kind.type == OBJECT.WRAP_KEY else b""
        answer = self._device.ask(kind.make, head, delegated, pure=False)
        number = int.from_bytes(answer, "big")
        self._assert_ours(self.describe(number, kind.type), spec, label)
        return number, self.public_key(number, spec)

    def room(self) -> Room:
        total, free, _, pages, _ = _exactly(_STORAGE, self._device.ask(COMMAND.GET_STORAGE_INFO))
        return Room(total, free, pages)

    def _require_room(self, kind: Kind) -> None:
        room = self.room()
        if room.objects_free <= SPARE or room.pages_free < kind.pages:
            raise TokenFull(
                f"the YubiHSM is full: {room.objects - room.objects_free} of {room.objects} objects are taken, "
                f"{room.pages_free} pages are free, {SPARE} objects stay in reserve. Destroy resident keys, or use "
                "protection `cached` for keys that may be",
                device="YUBIHSM_STORAGE",
            )

    def public_key(self, number: int, spec: KeySpec) -> bytes | None:
        """SubjectPublicKeyInfo DER; None for secret keys."""
        if KINDS[spec].type != OBJECT.ASYMMETRIC_KEY:
            return None
        answer = bytes(self._device.ask(COMMAND.GET_PUBLIC_KEY, struct.pack(">H", number)))
        return _spki(answer[:1], answer[1:])

    def destroy(self, label: str, id_: bytes) -> list[int]:
        """The numbers of the objects of that name, which are gone."""
        found = self.named(label, id_)
        for number, type_ in found:
            self._device.ask(COMMAND.DELETE_OBJECT, _TARGET.pack(number, type_), pure=False)
        return [number for number, _ in found]

    def listed(self) -> Sequence[ObjectInfo]:
        return [self._listed(number, type_) for number, type_ in self._list()]

    def _listed(self, number: int, type_: int) -> ObjectInfo:
        found = self.describe(number, type_)
        label, id_ = names.unpack(found.label, number)
        return ObjectInfo(label, id_, _KINDS.get(type_, "secret"), _algorithm_name(found.algorithm))

    def attest(self, label: str, id_: bytes) -> list[bytes]:
        """The certificate that the device signs for a key with its built-in key, then the device's own where it has
        one. Raises Unsupported for keys that it does not vouch for."""
        found = self.named(label, id_)
        if len(found) != 1:
            raise HsmError(f"the YubiHSM has {len(found)} objects named {label!r}")
        number, type_ = found[0]
        if type_ != OBJECT.ASYMMETRIC_KEY or self.describe(number, type_).algorithm == ALGORITHM.EC_ED25519:
            raise Unsupported("a YubiHSM attests RSA keys and keys on NIST curves, no Ed25519 and no secret keys")
        ask, pair = self._device.ask, struct.pack(">HH", number, DEVICE_CERTIFICATE)
        try:
            leaf = bytes(ask(COMMAND.SIGN_ATTESTATION_CERTIFICATE, pair))
        except HsmError as error:
            if error.device == "YUBIHSM_INSUFFICIENT_PERMISSIONS":
                needs = " ".join(capability_names(ATTESTATION_NEEDS))
                raise Unsupported(f"openk's authentication key may not attest: it lacks {needs}") from None
            raise
        try:
            return [leaf, bytes(ask(COMMAND.GET_OPAQUE, struct.pack(">H", DEVICE_CERTIFICATE)))]
        except HsmError:
            return [leaf]  # not every device shows its certificate; Yubico's site has them all


def _algorithm_name(number: int) -> str:
    try:
        algorithm = ALGORITHM(number)
    except ValueError:
        return f"algorithm {number}"
    return NAMES.get(algorithm, algorithm.name.lower().replace("_", "-"))


def _exactly(form: struct.Struct, answer: memoryview) -> tuple[Any, ...]:  # Any: as struct gives it
    if len(answer) != form.size:
        raise HsmError("an answer of the device has an impossible length")
    return form.unpack(answer)


def _spki(kind: bytes, raw: bytes) -> bytes:
    algorithm = int.from_bytes(kind, "big")
    key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
    try:
        if algorithm == ALGORITHM.EC_ED25519:
            key = ed25519.Ed25519PublicKey.from_public_bytes(raw)
        elif algorithm in _CURVES:
            key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[algorithm](), b"\x04" + raw)
        else:
            key = rsa.RSAPublicNumbers(RSA_EXPONENT, int.from_bytes(raw, "big")).public_key()
    except ValueError:
        raise Untrusted("the device's public key is none") from None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def supported(algorithms: frozenset[ALGORITHM]) -> frozenset[KeySpec]:
    """What a device with these algorithms can hold."""
    return frozenset(
        spec for spec, kind in KINDS.items() if kind.algorithm in algorithms and _usable(spec.algorithm, algorithms)
    )


def _usable(algorithm: Algorithm, algorithms: frozenset[ALGORITHM]) -> bool:
    if algorithm in {Algorithm.P256, Algorithm.P384, Algorithm.P521}:
        return ALGORITHM.EC_ECDSA_SHA256 in algorithms
    return True
