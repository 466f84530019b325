"""Templates: every attribute explicit, at generation and at unwrap, because defaults differ between tokens.

SoftHSM2 and python-pkcs11 default the wrong way for several of these (an unwrapped key silently stays EXTRACTABLE).
What is set here is also what `expected` asserts afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.module import Template, Value, encode_value
from openk_hsm.pkcs11.public import EC_PARAMS
from openk_hsm.pkcs11.quirks import NONE, Quirks
from openk_hsm.seam import Algorithm, KeySpec, Purpose
from openk_hsm.specs import RSA_BITS, SECRET_BYTES, Attributes, bound_attributes

Rows = list[tuple[int, Value]]

_SECRET_USES: Final = (
    (ck.CKA_ENCRYPT, Attributes.ENCRYPT),
    (ck.CKA_DECRYPT, Attributes.DECRYPT),
    (ck.CKA_SIGN, Attributes.SIGN),
    (ck.CKA_VERIFY, Attributes.VERIFY),
    (ck.CKA_WRAP, Attributes.WRAP),
    (ck.CKA_UNWRAP, Attributes.UNWRAP),
    (ck.CKA_DERIVE, Attributes.DERIVE),
)
_PRIVATE_USES: Final = (
    (ck.CKA_DECRYPT, Attributes.DECRYPT),
    (ck.CKA_SIGN, Attributes.SIGN),
    (ck.CKA_SIGN_RECOVER, Attributes(0)),
    (ck.CKA_UNWRAP, Attributes.UNWRAP),
    (ck.CKA_DERIVE, Attributes.DERIVE),
)
_GENERATORS: Final[dict[int, int]] = {
    ck.CKK_AES: ck.CKM_AES_KEY_GEN,
    ck.CKK_GENERIC_SECRET: ck.CKM_GENERIC_SECRET_KEY_GEN,
    ck.CKK_RSA: ck.CKM_RSA_PKCS_KEY_PAIR_GEN,
    ck.CKK_EC: ck.CKM_EC_KEY_PAIR_GEN,
    ck.CKK_EC_EDWARDS: ck.CKM_EC_EDWARDS_KEY_PAIR_GEN,
    ck.CKK_EC_MONTGOMERY: ck.CKM_EC_MONTGOMERY_KEY_PAIR_GEN,
}


@dataclass(frozen=True, slots=True)
class Kind:
    """What PKCS#11 calls a key of some algorithm."""

    object_class: int
    key_type: int

    @property
    def generator(self) -> int:
        return _GENERATORS[self.key_type]


def kind_of(algorithm: Algorithm) -> Kind:
    """Raises KeyError for an algorithm that is not held in a PKCS#11 token."""
    if algorithm in SECRET_BYTES:
        aes = algorithm in (Algorithm.AES_256_GCM, Algorithm.AES_256_KWP)
        return Kind(ck.CKO_SECRET_KEY, ck.CKK_AES if aes else ck.CKK_GENERIC_SECRET)
    if algorithm in RSA_BITS:
        return Kind(ck.CKO_PRIVATE_KEY, ck.CKK_RSA)
    if algorithm is Algorithm.ED25519:
        return Kind(ck.CKO_PRIVATE_KEY, ck.CKK_EC_EDWARDS)
    if algorithm is Algorithm.X25519:
        return Kind(ck.CKO_PRIVATE_KEY, ck.CKK_EC_MONTGOMERY)
    if algorithm in EC_PARAMS:
        return Kind(ck.CKO_PRIVATE_KEY, ck.CKK_EC)
    raise KeyError(algorithm)


def protective(spec: KeySpec, *, extractable: bool = False) -> Rows:
    """Usage and protection, each attribute that decides about either.

    Put these last, and MODIFIABLE last of them: SoftHSM2 applies a template to an unwrapped key in its order, and
    answers CKR_ATTRIBUTE_READ_ONLY to whatever follows MODIFIABLE = false.
    """
    bits = bound_attributes(spec)
    kind = kind_of(spec.algorithm)
    uses = _SECRET_USES if kind.object_class == ck.CKO_SECRET_KEY else _PRIVATE_USES
    rows: Rows = [(attribute, bool(bits & bit)) for attribute, bit in uses]
    rows += [
        (ck.CKA_PRIVATE, True),
        (ck.CKA_SENSITIVE, True),
        (ck.CKA_EXTRACTABLE, extractable),
        (ck.CKA_COPYABLE, False),
        (ck.CKA_MODIFIABLE, False),
    ]
    return rows


def _identity(spec: KeySpec, *, token: bool) -> Rows:
    kind = kind_of(spec.algorithm)
    return [(ck.CKA_CLASS, kind.object_class), (ck.CKA_KEY_TYPE, kind.key_type), (ck.CKA_TOKEN, token)]


def named(label: str, id_: bytes) -> Rows:
    return [(ck.CKA_LABEL, label.encode()), (ck.CKA_ID, id_)]


def _template(rows: Rows, quirks: Quirks) -> Template:
    return Template([row for row in rows if row[0] not in quirks.inexpressible])


def generated(
    spec: KeySpec, name: Sequence[tuple[int, Value]], *, token: bool, extractable: bool, quirks: Quirks = NONE
) -> Template:
    """For C_GenerateKey, or the private half of C_GenerateKeyPair. `extractable` only until it was wrapped."""
    rows = _identity(spec, token=token) + protective(spec, extractable=extractable) + list(name)
    size = SECRET_BYTES.get(spec.algorithm)
    if size is not None:
        rows.append((ck.CKA_VALUE_LEN, size))
    return _template(rows, quirks)


def public_half(
    spec: KeySpec,
    name: Sequence[tuple[int, Value]],
    *,
    token: bool,
    rsa_bits: int = 0,
    quirks: Quirks = NONE,
) -> Template:
    """For the public half of C_GenerateKeyPair: it is only read, then (unless resident) destroyed. One use is allowed
    though nobody has it: NSS softokn refuses a key that is for nothing. `rsa_bits`: 0 for the spec's own size."""
    rows: Rows = [
        (ck.CKA_CLASS, ck.CKO_PUBLIC_KEY),
        (ck.CKA_KEY_TYPE, kind_of(spec.algorithm).key_type),
        (ck.CKA_TOKEN, token),
        (ck.CKA_PRIVATE, False),
        (ck.CKA_ENCRYPT, spec.purpose is Purpose.DECRYPT),
        (ck.CKA_VERIFY, spec.purpose is Purpose.SIGN),
        (ck.CKA_VERIFY_RECOVER, False),
        (ck.CKA_WRAP, False),
        (ck.CKA_DERIVE, False),
        (ck.CKA_MODIFIABLE, False),
        *name,
    ]
    if spec.algorithm in RSA_BITS:
        rows += [(ck.CKA_MODULUS_BITS, rsa_bits or RSA_BITS[spec.algorithm]), (ck.CKA_PUBLIC_EXPONENT, b"\x01\x00\x01")]
    else:
        rows.append((ck.CKA_EC_PARAMS, EC_PARAMS[spec.algorithm]))
    return _template(rows, quirks)


def unwrapped(spec: KeySpec, quirks: Quirks = NONE) -> Template:
    """For C_UnwrapKey into a session object. No VALUE_LEN: the length is the blob's (PKCS#11 v3.1, section 5.18.4).
    Where the token unwraps loosely the key stays modifiable until it was copied under `tightened`."""
    rows = _identity(spec, token=False)
    if spec.algorithm in EC_PARAMS:
        rows += quirks.unwrapped_curve_rows
    loose = quirks.unwraps_loosely
    rows += [(kind, loose if kind == ck.CKA_MODIFIABLE else value) for kind, value in protective(spec)]
    return _template(rows, quirks)


def tightened(spec: KeySpec, quirks: Quirks) -> Template:
    """For C_CopyObject of a key that was unwrapped loosely."""
    return _template([(ck.CKA_TOKEN, False), *protective(spec)], quirks)


def expected(spec: KeySpec, *, token: bool, quirks: Quirks = NONE) -> list[tuple[int, frozenset[bytes]]]:
    """What the lasting object must say of itself, one of each, or it is not ours."""
    stated = _identity(spec, token=token) + protective(spec)
    rows = [(kind, frozenset({encode_value(value)})) for kind, value in stated if kind not in quirks.inexpressible]
    size = SECRET_BYTES.get(spec.algorithm)
    if size is not None:
        lengths = {size, 0} if quirks.hides_unwrapped_length and not token else {size}
        rows.append((ck.CKA_VALUE_LEN, frozenset(map(encode_value, lengths))))
    elif spec.algorithm in EC_PARAMS:
        named_otherwise = {quirks.curve_names[spec.algorithm]} if spec.algorithm in quirks.curve_names else set[bytes]()
        rows.append((ck.CKA_EC_PARAMS, frozenset({EC_PARAMS[spec.algorithm], *named_otherwise})))
    return rows


LASTING: Final[Rows] = [
    (ck.CKA_PRIVATE, True),
    (ck.CKA_SENSITIVE, True),
    (ck.CKA_EXTRACTABLE, False),
    (ck.CKA_COPYABLE, False),
    (ck.CKA_MODIFIABLE, False),
]
"""What every secret or private key of openk on a token says of itself, whatever it is for."""


# No MODIFIABLE here: SoftHSM2 sets it before the value and then refuses the value. The object lives for two calls.
SHARED_SECRET: Final[Rows] = [
    (ck.CKA_CLASS, ck.CKO_SECRET_KEY),
    (ck.CKA_KEY_TYPE, ck.CKK_GENERIC_SECRET),
    (ck.CKA_TOKEN, False),
    (ck.CKA_PRIVATE, True),
    (ck.CKA_SENSITIVE, False),  # read once into the hand-off region, then destroyed
    (ck.CKA_EXTRACTABLE, True),
    (ck.CKA_ENCRYPT, False),
    (ck.CKA_DECRYPT, False),
    (ck.CKA_SIGN, False),
    (ck.CKA_VERIFY, False),
    (ck.CKA_WRAP, False),
    (ck.CKA_UNWRAP, False),
    (ck.CKA_DERIVE, False),
]
