"""What a token really does, and what of that openk chooses: everything is tried once, nothing read from a list.

A token may list a mechanism and refuse the key (SoftHSM 2.6.1 makes Ed25519 keys but does not wrap them), wrap it and
leave it extractable (opencryptoki), or draw a GCM nonce of its own.  Probing makes session objects only, under keys
made for it.  One purpose of each algorithm speaks for the others, and an RSA key of 1024 bits, where the token makes
one, for the slower sizes: probing is part of each start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from openk_hsm.binding import Wrap
from openk_hsm.errors import HsmError, Unsupported
from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.composite import CIPHER_HALF, MAC_HALF
from openk_hsm.pkcs11.known_answer import KnownAnswer
from openk_hsm.pkcs11.mechanisms import CKM, Mechanisms
from openk_hsm.pkcs11.module import Module
from openk_hsm.pkcs11.objects import Objects
from openk_hsm.pkcs11.templates import kind_of
from openk_hsm.pkcs11.wrapping import BLOB_OF_32, CANDIDATES
from openk_hsm.seam import Algorithm, KeySpec, Mechanism, Purpose
from openk_hsm.specs import MECHANISMS, RSA_BITS

PROBE_RSA_BITS: Final = 1024
KEY_WRAP: Final = KeySpec(Algorithm.AES_256_KWP, Purpose.KEY_WRAP)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """`ways`: mechanism numbers of the ways of wrapping that work; `way_of`: the best way for each algorithm."""

    resident: frozenset[KeySpec] = frozenset()
    wrapped: frozenset[KeySpec] = frozenset()
    mechanisms: frozenset[Mechanism] = frozenset()
    ways: Mapping[Wrap, int] = field(default_factory=dict[Wrap, int])
    way_of: Mapping[Algorithm, Wrap] = field(default_factory=dict[Algorithm, Wrap])


@dataclass(frozen=True, slots=True)
class DataWay:
    """How `data` keys seal: AES_256_GCM or AES_256_CBC_HMAC. `known` is learnt; its key lives as long as the session.
    `why`: what was wrong with GCM, when it was."""

    algorithm: Algorithm
    known: KnownAnswer
    key: int
    why: str = ""


def choose_data_way(module: Module, session: int, objects: Objects, listed: frozenset[int]) -> DataWay:
    """GCM with our nonces where the token does that, else CBC and HMAC. Raises Unsupported when it has neither."""
    if ck.CKM_AES_KEY_GEN not in listed:
        raise Unsupported("the token makes no AES keys: openk's keys cannot live on it")
    try:
        key, _ = objects.generate(CIPHER_HALF, [], token=False, extractable=False)
    except HsmError as error:
        raise Unsupported(
            f"the token makes no AES keys ({error.device}): openk's keys cannot live on it", device=error.device
        ) from None
    why = "the token has no AES-GCM"
    if ck.CKM_AES_GCM in listed:
        known = KnownAnswer(module, session, key, gcm=True)
        try:
            known.learn()
        except HsmError as error:
            why = str(error)
        else:
            return DataWay(Algorithm.AES_256_GCM, known, key)
    known = KnownAnswer(module, session, key, gcm=False)
    try:
        known.learn()
        mac, _ = objects.generate(MAC_HALF, [], token=False, extractable=False)
        objects.destroy(mac)
    except HsmError as error:
        raise Unsupported(
            f"the token seals no data: {why}, and no AES-CBC with HMAC-SHA-256 either ({error})"
        ) from None
    return DataWay(Algorithm.AES_256_CBC_HMAC, known, key, why)


def probe(objects: Objects, listed: frozenset[int], data: DataWay) -> Capabilities:
    """What the token does. `listed`: the CKM numbers it names. Sets the ways of `objects.wrapping`."""
    works: set[Mechanism] = {mechanism for mechanism, number in CKM.items() if number in listed}
    if data.algorithm is not Algorithm.AES_256_GCM:
        works.discard(Mechanism.AES_GCM)
    kw, _ = objects.generate(KEY_WRAP, [], token=False, extractable=False)
    try:
        ways = _find_ways(objects, kw, listed)
        objects.wrapping.ways = ways
        return _try_all(objects, kw, listed, works)
    finally:
        objects.destroy(kw)


def _find_ways(objects: Objects, kw: int, listed: frozenset[int]) -> dict[Wrap, int]:
    ways: dict[Wrap, int] = {}
    sample, _ = objects.generate(KEY_WRAP, [], token=False, extractable=True)
    try:
        for way, mechanism in CANDIDATES:
            if way not in ways and mechanism in listed and _wraps(objects, kw, sample, way, mechanism):
                ways[way] = mechanism
    finally:
        objects.destroy(sample)
    return ways


def _wraps(objects: Objects, kw: int, sample: int, way: Wrap, mechanism: int) -> bool:
    try:
        blob = objects.wrap(way, kw, sample, mechanism)
        return len(blob) == BLOB_OF_32[way] and _returns(objects, kw, KEY_WRAP, way, blob, mechanism)
    except HsmError:
        return False


def _returns(objects: Objects, kw: int, spec: KeySpec, way: Wrap, blob: bytes, mechanism: int = 0) -> bool:
    """Whether the blob unwraps into a key that is as openk wants it. Raises HsmError."""
    opened = objects.unwrap(way, kw, spec, blob, mechanism)
    try:
        objects.assert_ours(opened, spec, token=False, sized=False)
    finally:
        objects.destroy(opened)
    return True


def _try_all(objects: Objects, kw: int, listed: frozenset[int], works: set[Mechanism]) -> Capabilities:
    resident: set[KeySpec] = set()
    wrapped: set[KeySpec] = set()
    way_of: dict[Algorithm, Wrap] = {}
    tried: dict[Algorithm, tuple[bool, Wrap | None]] = {}
    for spec, used_with in MECHANISMS.items():
        if (used_with and not used_with & works) or kind_of(spec.algorithm).generator not in listed:
            continue
        speaker = Algorithm.RSA_2048 if spec.algorithm in RSA_BITS else spec.algorithm
        if speaker not in tried:
            purpose = Purpose.DECRYPT if spec.algorithm in RSA_BITS else spec.purpose
            tried[speaker] = _try(objects, kw, KeySpec(speaker, purpose), works)
        makes, way = tried[speaker]
        if makes:
            resident.add(spec)
        if way is not None:
            wrapped.add(spec)
            way_of[spec.algorithm] = way
    return Capabilities(frozenset(resident), frozenset(wrapped), frozenset(works), dict(objects.wrapping.ways), way_of)


def _try(objects: Objects, kw: int, spec: KeySpec, works: set[Mechanism]) -> tuple[bool, Wrap | None]:
    """Whether it makes such a key, and the best way it wraps one; strikes out of `works` the OAEP hashes it refuses."""
    bits = PROBE_RSA_BITS if spec.algorithm in RSA_BITS else 0
    try:
        handle = _generate(objects, spec, bits)
    except HsmError:
        return False, None
    try:
        if bits:
            _strike(objects, handle, works)
        for way in objects.wrapping.ways:
            try:
                if _returns(objects, kw, spec, way, objects.wrap(way, kw, handle)):
                    return True, way
            except HsmError:
                continue
    finally:
        objects.destroy(handle)
    return True, None


def _generate(objects: Objects, spec: KeySpec, rsa_bits: int) -> int:
    if rsa_bits:
        try:
            return objects.generate(spec, [], token=False, extractable=True, rsa_bits=rsa_bits)[0]
        except HsmError:
            pass  # a token that refuses small keys: the real size then
    return objects.generate(spec, [], token=False, extractable=True)[0]


def _strike(objects: Objects, handle: int, works: set[Mechanism]) -> None:
    mechanisms = Mechanisms()
    for mechanism in MECHANISMS[KeySpec(Algorithm.RSA_2048, Purpose.DECRYPT)] & works:
        if not objects.begins_decrypt(handle, mechanisms.address[mechanism], RSA_BITS[Algorithm.RSA_2048] // 8):
            works.discard(mechanism)
