"""What tokens do differently from PKCS#11, as data: one row a family, its source beside it.

What can be found out by trying is not here but in `probe` (which mechanisms work, whether our nonce is kept, how keys
wrap).  Here is what must be known beforehand: attributes that a token cannot express, and answers that mean something
else than they say.  A token that matches no row gets `NONE`: the standard, to the letter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from openk_hsm.pkcs11 import constants as ck
from openk_hsm.seam import Algorithm

Rows = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Quirks:
    """Deviations of one family of tokens. The defaults are the standard's."""

    inexpressible: frozenset[int] = frozenset()
    """Attributes that the token does not know: neither set nor asserted. What they would forbid stays possible for
    whoever has the PIN; docs/hsm.md says so for each family."""
    unwraps_loosely: bool = False
    """C_UnwrapKey ignores parts of its template: the key is copied under the right one (C_CopyObject, whose template
    it keeps), the loose one destroyed. Both are session objects of this process."""
    unwrapped_curve_rows: Rows = ()
    """What else an unwrapping template of an elliptic-curve key must have."""
    hides_unwrapped_length: bool = False
    """CKA_VALUE_LEN of an unwrapped key reads 0; its length is bound by the blob's HMAC."""
    curve_names: dict[Algorithm, bytes] = field(default_factory=dict[Algorithm, bytes])
    """CKA_EC_PARAMS that it answers in place of the namedCurve that it was given."""
    login_races: bool = False
    """C_Login of two processes at once: one gets CKR_GENERAL_ERROR, and may try the same PIN again."""


NONE: Final = Quirks()


@dataclass(frozen=True, slots=True)
class Family:
    """Patterns are matched from their beginning, the library's version being "major.minor"."""

    name: str
    manufacturer: str
    model: str
    library: str
    quirks: Quirks
    sources: tuple[str, ...]


FAMILIES: Final[tuple[Family, ...]] = (
    Family(
        "SoftHSM 2",
        manufacturer="SoftHSM project",
        model="SoftHSM v2",
        library=r"2\.",
        quirks=Quirks(
            hides_unwrapped_length=True,
            curve_names={Algorithm.ED25519: b"\x13\x0cedwards25519"},
            login_races=True,
        ),
        sources=(
            "2.6.1: CKA_VALUE_LEN of an unwrapped AES or generic secret key reads 0 (measured)",
            "2.6.1: CKA_EC_PARAMS of an Ed25519 key reads as curveName edwards25519 (measured), as v3.0 allows",
            "2.6.1: C_Login in two processes at once answers CKR_GENERAL_ERROR to one of them (measured)",
            "2.6.1: objects that are overlooked, a token that a login empties: openk_hsm.pkcs11.softhsm (measured)",
        ),
    ),
    Family(
        "opencryptoki",
        manufacturer="IBM",
        model="IBM",
        library=r"3\.",
        quirks=Quirks(inexpressible=frozenset({ck.CKA_COPYABLE}), unwraps_loosely=True),
        sources=(
            "3.8.1: PKCS#11 2.20, so CKA_COPYABLE is CKR_ATTRIBUTE_TYPE_INVALID in any template (measured)",
            "3.8.1: C_UnwrapKey leaves keys insensitive and extractable whatever the template says (measured)",
            "the same of another token: Mastercard/pkcs11-tools issue 16. C_CopyObject keeps its template (measured)",
        ),
    ),
    Family(
        "NSS softokn",
        manufacturer="Mozilla Foundation",
        model="NSS 3",
        library=r"3\.",
        quirks=Quirks(
            inexpressible=frozenset({ck.CKA_COPYABLE}),
            unwraps_loosely=True,
            unwrapped_curve_rows=((ck.CKA_NSS_DB, b"\x00"),),
        ),
        sources=(
            "3.87: token objects with CKA_COPYABLE are CKR_GENERAL_ERROR, its database has no such column (measured)",
            "3.87: unwrapped private keys have every usage of their type whatever the template says (measured)",
            "3.87: C_UnwrapKey of an EC key without CKA_NSS_DB is CKR_TEMPLATE_INCOMPLETE (measured)",
        ),
    ),
    Family(
        "tpm2-pkcs11",
        manufacturer="tpm2-software",
        model="",
        library=r"1\.",
        quirks=Quirks(inexpressible=frozenset({ck.CKA_COPYABLE})),
        sources=("1.9: unknown attributes in a template are CKR_ATTRIBUTE_TYPE_INVALID (measured)",),
    ),
)


def quirks_of(manufacturer: str, model: str, library_manufacturer: str, library_version: str) -> Quirks:
    """The quirks of the family that a token belongs to, or `NONE`."""
    found = family_of(manufacturer, model, library_manufacturer, library_version)
    return NONE if found is None else found.quirks


def family_of(manufacturer: str, model: str, library_manufacturer: str, library_version: str) -> Family | None:
    """The first family whose patterns all match; `manufacturer` may be the token's or the library's."""
    for family in FAMILIES:
        made_by = any(re.match(family.manufacturer, name) for name in (manufacturer, library_manufacturer))
        if made_by and re.match(family.model, model) and re.match(family.library, library_version):
            return family
    return None
