"""What a token really does: each algorithm is generated, wrapped and unwrapped once, not read from a list.

A token may list a mechanism and refuse the key (SoftHSM 2.6.1 makes Ed25519 keys but does not wrap them).
Probing makes session objects only, under a wrapping key made for it. One purpose of each algorithm speaks for the
others, and an RSA key of 1024 bits, where the token makes one, for the slower sizes: probing is part of each start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openk_hsm.errors import HsmError
from openk_hsm.pkcs11.mechanisms import CKM, Mechanisms
from openk_hsm.pkcs11.objects import Objects
from openk_hsm.pkcs11.templates import kind_of
from openk_hsm.seam import Algorithm, KeySpec, Mechanism, Purpose
from openk_hsm.specs import MECHANISMS, RSA_BITS

PROBE_RSA_BITS: Final = 1024


@dataclass(frozen=True, slots=True)
class Capabilities:
    resident: frozenset[KeySpec]
    wrapped: frozenset[KeySpec]
    mechanisms: frozenset[Mechanism]


def probe(objects: Objects, kw: int, listed: frozenset[int]) -> Capabilities:
    """What the token does. `kw`: a wrapping key made for this; `listed`: the CKM numbers it names."""
    resident: set[KeySpec] = set()
    wrapped: set[KeySpec] = set()
    works: set[Mechanism] = {mechanism for mechanism, number in CKM.items() if number in listed}
    tried: dict[Algorithm, tuple[bool, bool]] = {}
    for spec, used_with in MECHANISMS.items():
        if (used_with and not used_with & works) or kind_of(spec.algorithm).generator not in listed:
            continue
        speaker = Algorithm.RSA_2048 if spec.algorithm in RSA_BITS else spec.algorithm
        if speaker not in tried:
            purpose = Purpose.DECRYPT if spec.algorithm in RSA_BITS else spec.purpose
            tried[speaker] = _try(objects, kw, KeySpec(speaker, purpose), works)
        makes, wraps = tried[speaker]
        if makes:
            resident.add(spec)
        if wraps:
            wrapped.add(spec)
    return Capabilities(frozenset(resident), frozenset(wrapped), frozenset(works))


def _try(objects: Objects, kw: int, spec: KeySpec, works: set[Mechanism]) -> tuple[bool, bool]:
    """Whether it makes such a key, and whether it wraps one; strikes out of `works` the OAEP hashes it refuses."""
    bits = PROBE_RSA_BITS if spec.algorithm in RSA_BITS else 0
    try:
        handle = _generate(objects, spec, bits)
    except HsmError:
        return False, False
    try:
        if bits:
            _strike(objects, handle, works)
        opened = objects.unwrap(kw, spec, objects.wrap(kw, handle))
    except HsmError:
        return True, False
    finally:
        objects.destroy(handle)
    try:
        objects.assert_ours(opened, spec, token=False, sized=False)
    except HsmError:
        return True, False
    finally:
        objects.destroy(opened)
    return True, True


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
