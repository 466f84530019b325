"""The daemon's HSMs by name, and which of them a key or a vault lives on.

    [hsm.main]   the first: home. Audit key, directory of vaults, random bytes, and the vaults that name no HSM
    [hsm.vendor] another: only the vaults that were created on it, under root keys of its own

`Hsms.lane` is what handlers submit to. With one HSM it is that HSM's lane itself; with several it looks at each
operation's key (`KeyHandle.hsm`) and passes it on.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from openk_daemon.audit.note_key import NoteKey, NoteKeyInvalid, read_note_key
from openk_daemon.config_values import ConfigError
from openk_daemon.refusal import Refusal
from openk_hsm.lane_health import LaneHealth
from openk_hsm.pending import Pending
from openk_hsm.roots import AUDIT_KEYS, ROOT
from openk_hsm.seam import Generated, KeyHandle, KeySpec, Lane, Notice, ObjectInfo, Operation, TokenInfo, Wrapper

HOME = ""
"""How records and key handles name the first HSM: it may be renamed in the configuration."""


class OnHsm(Protocol):
    """What lives on one HSM: a vault's keys."""

    @property
    def hsm(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Device:
    """An HSM as operators see it: one that is configured, a group of them, or a member of a group.

    `name`: as configured. `recorded`: the HSM of records whose root keys it has. `configured`: workers it should have.
    `group`: of which it is a member. Not `residents`: it has the root keys, and no other token objects of openk's."""

    name: str
    lane: Lane
    recorded: str
    configured: int
    group: str | None = None
    residents: bool = True


class Hsms(Mapping[str, Lane]):
    """Configured name to lane, in order of configuration; the first is home. Immutable."""

    def __init__(self, lanes: Mapping[str, Lane]) -> None:
        if not lanes:
            raise ValueError("there is no HSM")
        self._lanes = dict(lanes)
        self.home: str = next(iter(self._lanes))
        """The first one's configured name."""
        self._known: dict[str, Lane] = {**self._lanes, HOME: self.default}
        self.lane: Lane = self.default if len(self._lanes) == 1 else _Routing(self._known)
        """Takes operations for all of them."""

    @classmethod
    def single(cls, lane: Lane) -> Hsms:
        return cls({lane.name: lane})

    @property
    def default(self) -> Lane:
        return self._lanes[self.home]

    def __getitem__(self, name: str) -> Lane:
        return self._lanes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lanes)

    def __len__(self) -> int:
        return len(self._lanes)

    def of(self, recorded: str) -> Lane:
        """The lane of a name as records have it. Raises Refusal(hsm.unavailable) where it is configured no longer."""
        lane = self._known.get(recorded)
        if lane is None:
            raise Refusal(
                "hsm.unavailable", f"this lives on the HSM {recorded!r}, which openkd's configuration has not"
            )
        return lane

    def of_vault(self, vault: OnHsm) -> Lane:
        return self.of(vault.hsm)

    def recorded(self, configured: str | None) -> str:
        """What records say for a configured name; home's for None. Raises Refusal(request.invalid)."""
        if configured is None or configured == self.home:
            return HOME
        if configured not in self._lanes:
            near = difflib.get_close_matches(configured, self._lanes, 1)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(self._lanes)}"
            raise Refusal("request.invalid", f"no HSM is named {configured[:64]!r}: {hint}")
        return configured

    def shown(self, recorded: str) -> str:
        """The configured name, for clients and operators."""
        return recorded or self.home


@cache
def root_of(recorded: str) -> Wrapper:
    """The root keys that wrap vault keys on that HSM. Bounded: names come from the configuration."""
    if recorded == HOME:
        return ROOT
    return Wrapper(*(KeyHandle(key.slot, key.spec, key.source, recorded) for key in (ROOT.kw, ROOT.mac)))


class _Routing:
    """`openk_hsm.seam.Lane` over several: each call goes where its key lives; what has no key goes home."""

    def __init__(self, lanes: Mapping[str, Lane]) -> None:
        self._lanes = lanes
        self._home = lanes[HOME]
        self._submits = {name: lane.submit for name, lane in lanes.items()}
        self.name = self._home.name

    def submit(self, operation: Operation) -> Pending[bytes | int]:
        key = operation.key
        return self._submits[HOME if key is None else key.hsm](operation)

    def generate(self, spec: KeySpec, wrapper: Wrapper, context: bytes) -> Pending[Generated]:
        return self._lanes[wrapper.kw.hsm].generate(spec, wrapper, context)

    def generate_resident(self, spec: KeySpec, label: str, id_: bytes) -> Pending[Generated]:
        return self._home.generate_resident(spec, label, id_)

    def destroy_resident(self, label: str, id_: bytes) -> Pending[bool]:
        return self._home.destroy_resident(label, id_)

    def objects(self) -> Pending[Sequence[ObjectInfo]]:
        return self._home.objects()

    def info(self) -> Pending[TokenInfo]:
        return self._home.info()

    def attest(self, label: str, id_: bytes) -> Pending[Sequence[bytes]]:
        return self._home.attest(label, id_)

    def notices(self, after: int) -> Pending[Sequence[Notice]]:
        return self._home.notices(after)

    def unload(self, key: KeyHandle) -> None:
        self._lanes[key.hsm].unload(key)

    def health(self) -> LaneHealth:
        return self._home.health()


def audit_key_of(token: TokenInfo) -> NoteKey:
    """The home HSM's public audit key. Raises ConfigError where it has none."""
    if token.audit_public:
        try:
            return read_note_key(token.audit_public)
        except NoteKeyInvalid as error:
            raise ConfigError([f"the token {token.label!r} cannot sign the audit log: {error}"]) from error
    mistake = (
        f"the token {token.label!r} ({token.model}) has no key to sign the audit log with, for it makes none of "
        f"{', '.join(AUDIT_KEYS)}: name an HSM that has one as the first [hsm.NAME] (docs/algorithms.md); this one "
        "can hold vaults as a further HSM"
    )
    raise ConfigError([mistake])
