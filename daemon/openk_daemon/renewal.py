"""openkd rotates keys by itself, where a rule says so, and tells of those that are due otherwise.

    each rotation_seconds a round: all keys that rules may concern, so many a second        (keys/survey.py)
      due, by a rule that acts ─▶ the same change as key.rotate, with its audit record, at most so many a minute
      due, otherwise           ─▶ counted, and told of once

A key is looked at again once its turn has come, so that one that somebody has rotated meanwhile is left alone. Where
HSM, store or audit log fail, all waits, which is told once; a later round finds what was due, so nothing is lost. After
a crash a key has its old version or, whole, its new one.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final, Protocol

import trio

from openk_daemon.audit.seam import AuditDamaged, AuditUnavailable, Ledger
from openk_daemon.call import Outcome
from openk_daemon.hierarchy.records import RecordError
from openk_daemon.hierarchy.refusals import refuse
from openk_daemon.keys.state import KeyState
from openk_daemon.keys.survey import Found, Place, Survey
from openk_daemon.observe.exposition import Kind as MetricKind
from openk_daemon.observe.exposition import Labels
from openk_daemon.observe.health import OK, Finding, Health, State
from openk_daemon.observe.log import Log
from openk_daemon.observe.metrics import Metrics
from openk_daemon.rates import Bucket
from openk_daemon.rates import Rule as RateRule
from openk_daemon.refusal import Refusal
from openk_daemon.rotation import Rule
from openk_daemon.store.seam import Conflict, StoreError
from openk_daemon.watch.events import Events, Kind
from openk_hsm.errors import HsmError
from openk_hsm.pending import Flow, settle
from openk_memory.errors import Exhausted

TICK: Final = 1.0
"""Seconds between two steps."""
PAUSE: Final = 5.0
"""Seconds to wait after something failed that is not one key's."""
TOLD_MOST: Final = 1024
"""Keys remembered as told of; of more than those only their number is told."""
_ONE_KEYS: Final = ("key", "vault")
"""Refusals of these groups say something about the key that is to be rotated, and nothing about the others."""


class Renewing(Protocol):
    """openk_daemon.handlers.keys.KeyHandlers."""

    survey: Survey

    def renew(self, name: str, wanted: Callable[[KeyState], bool]) -> Flow[Outcome | None]: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """`seconds` between the beginnings of two rounds, `keys` looked at in a second, `per_minute` rotated."""

    seconds: float = 60.0
    keys: int = 100
    per_minute: int = 60


@dataclass(frozen=True, slots=True)
class Bars:
    """Why nothing can be done now: asked before each step."""

    sealed: Callable[[], bool]
    unrecorded: Callable[[], bool]
    """The audit log takes nothing."""
    unsteady: Callable[[], bool]
    """The wall clock was set a short while ago: whoever set it may be about to set it back."""


class Renewal:
    """Not for threads. `run` while the daemon serves; `replace` with each configuration."""

    def __init__(
        self, keys: Renewing, ledger: Ledger, events: Events, bars: Bars, log: Log,
        clock: Callable[[], float] = monotonic,
    ) -> None:  # fmt: skip
        self._keys = keys
        self._survey = keys.survey
        self._ledger = ledger
        self._events = events
        self._bars = bars
        self._log = log
        self._clock = clock
        self._pace = Pace()
        self._bucket = _bucket(self._pace, clock())
        self._began: float | None = None  # when the round under way did, monotonic seconds
        self._place: Place | None = None  # how far it has come; None: it has seen all
        self._due_at = 0.0  # of the next one
        self._rests_until = 0.0
        self._waiting: deque[Found] = deque()  # to be rotated: what one look found, at most
        self._trouble = ""  # the code of what keeps rotations waiting, as it was told
        self._met = ""  # of this round
        self._counting: Counter[str] = Counter()  # keys of this round that are due and stay so, by rule
        self._told: dict[str, int] = {}  # by key: the version that was told of
        self._still: set[str] = set()  # those of them that this round found again
        self.overdue: Mapping[str, int] = {}
        """Keys that are due, by rule, as of the last round."""
        self.rotated: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.looked = 0
        """Keys looked at since the start."""
        self.round_seconds = 0.0
        """How long the last round took."""

    def watch(self, metrics: Metrics, health: Health) -> None:
        """Raises ValueError when a name is taken."""
        counter = MetricKind.COUNTER
        metrics.watch("rotations_total", "Keys rotated by a rule.", lambda: self._by_rule(self.rotated), counter)
        metrics.watch(
            "rotations_failed_total", "Rotations by a rule that failed.", lambda: self._by_rule(self.failed), counter
        )
        metrics.watch("rotation_overdue", "Keys that are due for rotation.", lambda: self._by_rule(self.overdue))
        metrics.watch("rotation_looked_total", "Keys looked at for rotation.", lambda: self.looked, counter)
        metrics.watch("rotation_round_seconds", "Of the last look at all keys.", lambda: self.round_seconds)
        health.add("rotation", self.finding)

    def _by_rule(self, counts: Mapping[str, int]) -> Sequence[tuple[Labels, float]]:
        known = {rule.name: 0 for rule in self._survey.rules} | dict(counts)
        return [((("rule", name),), count) for name, count in known.items()]

    @property
    def overdue_total(self) -> int:
        return sum(self.overdue.values())

    def finding(self) -> Finding:
        if self._trouble:
            return Finding(State.DEGRADED, f"keys that are due are not rotated: {self._trouble}; see the log")
        if self.overdue:
            said = ", ".join(f"{count} by rule {name}" for name, count in self.overdue.items())
            return Finding(State.DEGRADED, f"keys are due for rotation: {said} (openk key list shows which)")
        return OK

    def replace(self, rules: Sequence[Rule], pace: Pace) -> None:
        """Other rules, another pace from now on. With other rules a round begins at once."""
        if pace != self._pace:
            self._pace = pace
            self._bucket = _bucket(pace, self._clock())
        if tuple(rules) == self._survey.rules:
            return
        self._survey.rules = tuple(rules)
        names = {rule.name for rule in rules}
        self.overdue = {name: count for name, count in self.overdue.items() if name in names}
        self._end_round()
        self._due_at = self._rests_until = 0.0
        self._told.clear()
        if not rules:
            self._trouble = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(TICK)
            await self.step()

    async def step(self) -> None:
        """One, once a second: rotate what waits for it, or look at some more keys. Raises nothing."""
        now = self._clock()
        if not self._survey.rules or now < self._rests_until or self._bars.sealed():
            return
        if self._began is None:
            if now < self._due_at:
                return
            self._began, self._due_at, self._place = now, now + self._pace.seconds, Place()
        try:
            if self._bars.unrecorded():
                raise AuditUnavailable("what would be rotated could not be recorded")
            if not self._waiting and self._place is not None:
                await self._look(self._place)
            await self._rotate_waiting()
        except Exception as error:  # noqa: BLE001 - clients are served, whatever keeps keys from being rotated
            self._rests_until = self._clock() + PAUSE
            self._note(_code(error), error)
        if self._place is None and not self._waiting:
            self._finish_round()

    # --- looking ---

    async def _look(self, place: Place) -> None:
        rules = self._survey.rules
        leg = await settle(self._survey.walk(place, self._pace.keys))
        if self._survey.rules is not rules:  # another round begins
            return
        self.looked += leg.looked
        if leg.trouble is not None:
            self._note(_code(leg.trouble), leg.trouble)
        for found in leg.found:
            if found.due.acts:
                self._waiting.append(found)
            else:
                self._tell_due(found)
        self._place = leg.place

    def _tell_due(self, found: Found) -> None:
        self._counting[found.due.rule] += 1
        if self._tell_once(found):
            self._log.warning("key.due", None, key=found.name, version=found.version, rule=found.due.rule)

    def _tell_once(self, found: Found) -> bool:
        """Whether that version of that key is to be told of now."""
        name = found.name
        before = self._told.get(name)
        if before is None and len(self._told) >= TOLD_MOST:
            return False
        self._told[name] = found.version
        self._still.add(name)
        return before != found.version

    def _finish_round(self) -> None:
        if self._began is None:  # ended by other rules
            return
        self.round_seconds = self._clock() - self._began
        self.overdue = dict(self._counting)
        if self._trouble and not self._met:
            self._log.info("rotation.resumed", was=self._trouble)
        self._trouble = self._met
        self._told = {name: version for name, version in self._told.items() if name in self._still}
        self._end_round()

    def _end_round(self) -> None:
        self._began, self._place, self._met = None, None, ""
        self._waiting.clear()
        self._counting.clear()
        self._still.clear()

    # --- rotating ---

    async def _rotate_waiting(self) -> None:
        """As many as the pace allows. Raises as `_rotate`."""
        if self._waiting and self._bars.unsteady():
            self._note("the wall clock was set", None)
            self._drop_waiting()
            return
        done: Counter[str] = Counter()
        try:
            while self._waiting and not self._bars.sealed() and not self._bucket.wait(1, self._clock()):
                self._bucket.tokens -= 1
                found = self._waiting.popleft()
                if await self._rotate(found):
                    done[found.due.rule] += 1
        finally:
            for rule, count in done.items():
                text = f"{count} keys were rotated by rule {rule}" if count > 1 else f"a key was rotated by rule {rule}"
                self._events.publish(Kind.KEYS_ROTATED, time.time(), text, subject=rule, value=count)

    def _drop_waiting(self) -> None:
        """They are due, and stay so until another round finds them."""
        for found in self._waiting:
            self._counting[found.due.rule] += 1
        self._waiting.clear()

    async def _rotate(self, found: Found) -> bool:
        """Whether it was: not where somebody else did, or where it cannot be. Raises what is not that key's own
        trouble."""
        try:
            version = await settle(self._renew(found))
        except Conflict:
            return False  # somebody else changed it; a later round looks at what it is now
        except Exception as error:
            rule, code = found.due.rule, _code(error)
            self.failed[rule] += 1
            self._counting[rule] += 1
            if code.partition(".")[0] not in _ONE_KEYS:
                raise
            if self._tell_once(found):
                self._log.error("key.unrotated", error, key=found.name, rule=rule, code=code)
            return False
        if version:
            self.rotated[found.due.rule] += 1
            self._log.info("key.rotated", key=found.name, version=version, rule=found.due.rule)
        return version > 0

    async def _renew(self, found: Found) -> int:
        """The new version, 0 for none; durable with its record. To its end once it has begun: whoever waits for it may
        be cancelled, and the turn must be given back."""
        outcome = await self._keys.renew(found.name, self._survey.acts_on)
        if outcome is None:
            return 0
        facts = dict(outcome.facts)
        entry = {"event": "key.rotate", "by": f"rotation.{found.due.rule}", "key": found.name, "outcome": "ok", **facts}
        try:
            await self._ledger.commit(json.dumps(entry, separators=(",", ":")), outcome.writes)
        except Exception:
            self._take([step.forget for step in outcome.after if step.forget is not None])
            raise
        self._take([step.apply for step in outcome.after])
        return int(facts["version"])

    def _take(self, steps: Sequence[Callable[[], None]]) -> None:
        """Each of them, whatever becomes of the others: the last one gives the key's turn back."""
        for step in steps:
            try:
                step()
            except Exception as error:  # noqa: BLE001 - as in the pipeline: what is durable stands
                self._log.error("rotation.unapplied", error)

    # --- trouble ---

    def _note(self, code: str, error: Exception | None) -> None:
        """Tell it once, until a whole round has met no trouble."""
        self._met = self._met or code
        if not self._trouble:
            self._trouble = code
            self._log.warning("rotation.waits", error, code=code)


def _bucket(pace: Pace, now: float) -> Bucket:
    return Bucket(RateRule("rotation", pace.per_minute / 60, max(1, pace.per_minute // 10)), now)


def _code(error: Exception) -> str:
    if isinstance(error, Refusal):
        return error.code.name
    if isinstance(error, AuditUnavailable | AuditDamaged):
        return error.code
    return refuse(error).code.name if isinstance(error, HsmError | StoreError | Exhausted | RecordError) else "internal"
