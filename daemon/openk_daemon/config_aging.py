"""What can be configured about growing old: when keys are rotated, and how much of the past is kept."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from openk.wire.methods import ALGORITHMS
from openk_daemon.config_running import LIVE, Crypto
from openk_daemon.rotation import COUNTED, DAY, SAYS_VERSION, Rule

Mistake = tuple[tuple[str, ...], str]
"""Which key of a rule (none: the rule itself), and a sentence with the remedy."""
_ALGORITHMS, _KEYS, _PURPOSES, _USES, _ACTION = ("algorithms",), ("keys",), ("purposes",), ("after_uses",), ("action",)
_PATTERN: Final = re.compile(r"[A-Za-z0-9._@+=:-]+/[A-Za-z0-9._@+=:/-]*\*?")
_SIGNING, _AGREEMENT = ("sign",), ("agree",)
PURPOSES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "aes": ("encrypt", "wrap"),
    "hmac": ("mac", "derive"),
    "ed25519": _SIGNING,
    "p": (*_SIGNING, *_AGREEMENT),
    "rsa": ("sign", "decrypt"),
    "x25519": _AGREEMENT,
    "ml-dsa": _SIGNING,
    "ml-kem": ("encapsulate",),
}
"""By the beginning of an algorithm's name; the same as openk_daemon.keys.suites, which needs an event loop."""


class Rotation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the newest version of a key is due to be replaced. The rule concerns what `vaults`, `keys`, `algorithms` and
    `purposes` say (whatever is left out is any). A key that several rules concern is due by the one that comes first:
    the order of tables and files means nothing. At least one of `after_days` and `after_uses` is given."""

    after_days: Annotated[
        Annotated[float, Meta(ge=0.01, le=36_500)] | None,
        Meta(description="So long after its newest version was made a key is due.", extra=LIVE),
    ] = None
    after_uses: Annotated[
        Annotated[int, Meta(ge=1, le=1 << 32)] | None,
        Meta(
            description="After so many uses of its newest version a key is due: of those whose uses are counted, which "
            "are the AES-GCM ones. At most `crypto.gcm_uses`. A crash may make a key due up to a block of uses early.",
            extra=LIVE,
        ),
    ] = None
    action: Annotated[
        Literal["tell", "rotate"],
        Meta(
            description="What openkd does about a key that is due: tell of it, or rotate it. AES-GCM keys are rotated "
            "by any such rule, for their ciphertexts say which version made them; keys of another kind, and resident "
            "ones, only by one that names their algorithm: somebody has to learn of the new public key, MAC or "
            "derived key, or a token has to have room for it.",
            extra=LIVE,
        ),
    ] = "tell"
    vaults: Annotated[
        tuple[Annotated[str, Meta(max_length=64)], ...],
        Meta(max_length=1024, description="Only keys in these vaults.", extra=LIVE),
    ] = ()
    keys: Annotated[
        tuple[Annotated[str, Meta(max_length=256)], ...],
        Meta(
            max_length=1024,
            description='Only these keys: "payments/card", or "payments/card-*" for all whose names begin so.',
            extra=LIVE,
        ),
    ] = ()
    algorithms: Annotated[
        tuple[Annotated[str, Meta(max_length=32)], ...],
        Meta(max_length=64, description="Only keys of these algorithms, as `openk key create` names them.", extra=LIVE),
    ] = ()
    purposes: Annotated[
        tuple[Literal["encrypt", "wrap", "mac", "derive", "sign", "decrypt", "agree", "encapsulate"], ...],
        Meta(max_length=8, description="Only keys for these purposes.", extra=LIVE),
    ] = ()


class Retention(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of the past is kept of what would grow for ever. Versions of keys are, because what they made may still
    have to be opened; the audit log is, because whoever holds a proof of one of its entries may ask for it
    (docs/operations.md)."""

    secret_versions: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="When a secret is put, versions so many or more below the new one are deleted in the same "
            "commit, the oldest first, 64 at most at once; 0: none is.",
            extra=LIVE,
        ),
    ] = 0
    changes: Annotated[
        int,
        Meta(
            ge=1000,
            le=1_000_000_000,
            description="Units of the store's change feed, some 100 bytes for each record that was written. A reader "
            "that is further behind is told so, and reads the records anew.",
            extra=LIVE,
        ),
    ] = 1_000_000


def rotation_rules(rotation: Mapping[str, Rotation]) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            name,
            None if one.after_days is None else round(one.after_days * DAY),
            one.after_uses,
            one.action == "rotate",
            frozenset(one.vaults),
            one.keys,
            frozenset(one.algorithms),
            frozenset(one.purposes),
        )
        for name, one in rotation.items()
    )


def unknown_algorithms(names: Sequence[str]) -> list[str]:
    """A sentence for each of those that there are not, with the remedy."""
    said: list[str] = []
    for name in names:
        if name not in ALGORITHMS:
            near = difflib.get_close_matches(name, ALGORITHMS, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(ALGORITHMS)}"
            said.append(f"there is no algorithm {name!r}: {hint}")
    return said


def mistakes_of(rule: Rotation, crypto: Crypto) -> Iterator[Mistake]:
    """What is wrong with a rule beyond its types. Most of it are rules that could never come into play, which whoever
    wrote them cannot have meant."""
    unknown = unknown_algorithms(rule.algorithms)
    for what in unknown:
        yield _ALGORITHMS, what
    if not unknown:
        yield from _unfit(rule, crypto)
    for pattern in rule.keys:
        if not _PATTERN.fullmatch(pattern):
            yield _KEYS, f"{pattern!r} is no name of a key: write VAULT/NAME, or the beginning of one with * behind it"
        elif rule.vaults and pattern.partition("/")[0] not in rule.vaults:
            yield _KEYS, f"{pattern!r} is in none of the rule's vaults: it could never match"
    if rule.after_days is None and rule.after_uses is None:
        yield (), "after_days or after_uses is missing: no key would ever be due"


def _unfit(rule: Rotation, crypto: Crypto) -> Iterator[Mistake]:
    algorithms = rule.algorithms or ALGORITHMS
    for purpose in rule.purposes:
        if not any(purpose in _purposes(name) for name in algorithms):
            yield _PURPOSES, f"no key of the rule's algorithms is for {purpose}: it could never match"
    matching = [name for name in algorithms if not rule.purposes or {*rule.purposes} & {*_purposes(name)}]
    counted = any(name in COUNTED for name in matching)
    if rule.after_uses is not None and matching and not counted:
        yield _USES, f"only uses of {', '.join(COUNTED)} keys are counted, and the rule concerns none"
    if rule.after_uses is not None and rule.after_uses > crypto.gcm_uses:
        yield _USES, f"is more than crypto.gcm_uses ({crypto.gcm_uses}): the key would be exhausted before"
    if rule.action == "rotate":
        if not rule.algorithms and not SAYS_VERSION & {*crypto.algorithms}:
            yield _ACTION, "crypto.algorithms allows no new keys of those that need not be named: it could only tell"
        for name in rule.algorithms:
            kind, _, bits = name.partition("-")
            if name not in crypto.algorithms:
                yield _ALGORITHMS, f"crypto.algorithms allows no new {name} keys: it could only tell"
            elif kind == "rsa" and int(bits) < crypto.rsa_bits:
                yield _ALGORITHMS, f"crypto.rsa_bits allows no new {name} keys: it could only tell"


def _purposes(algorithm: str) -> tuple[str, ...]:
    kind = next(kind for kind in PURPOSES_OF if algorithm == kind or algorithm.startswith(f"{kind}-"))
    return PURPOSES_OF[kind]
