"""What is told of a request: its record in the audit log, and what lines about it in the daemon's log say.

A request's `fragment` is how its record begins: JSON members, made once for all requests of a shape (`intake.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple, cast

from openk_daemon.call import Answer, Outcome
from openk_daemon.refusal import Refusal


class Marks(NamedTuple):
    """When a request began, was decided, went to the HSM (0.0: it was not the HSM that settled it) and was handled:
    monotonic seconds, 0.0 where it did not come so far."""

    began: float
    decided: float
    sent: float
    handled: float

    def stages(self, ended: float) -> dict[str, float]:
        """Milliseconds of each stage, until its record was durable at `ended`. `work` is the handler's own time where
        no HSM was waited for: reading the store, computing."""
        stages: dict[str, float] = {"policy": (self.decided or self.handled) - self.began}
        if self.decided and self.decided <= self.sent:
            stages |= {"queue": self.sent - self.decided, "hsm": self.handled - self.sent}
        elif self.decided:
            stages["work"] = self.handled - self.decided
        stages["audit"] = ended - self.handled
        return {f"{stage}_ms": round(1000 * seconds, 3) for stage, seconds in stages.items()}


def facts_of(fragment: str, request: str) -> dict[str, object]:
    """What every line about a request says of it: the id that the client and the audit log have, too, and what the
    record's beginning says: method, caller, vault, key. Parsed, and only where there is something to tell."""
    facts: dict[str, object] = {"request": request}
    try:
        parts: object = json.loads(f"{{{fragment}}}")
    except ValueError:
        return facts
    if isinstance(parts, dict):
        facts |= {name: part for name, part in cast("dict[str, object]", parts).items() if part is not None}
        name = next((facts[kind] for kind in ("key", "secret") if kind in facts), None)
        if isinstance(name, str):
            facts["vault"] = name.partition("/")[0]
    return facts


def code_of(results: Sequence[Answer | Refusal]) -> str:
    """What lines and metrics call the end of a request that was handled: the code of its only item, else "ok"."""
    first = results[0] if len(results) == 1 else None
    return first.code.name if isinstance(first, Refusal) else "ok"


def record(fragment: str, request: str, outcome: Outcome, batch: bool) -> str:  # noqa: FBT001
    """The audit record of a request that was handled: JSON, put together from parts that are JSON already. Values are
    never in it."""
    results = outcome.results
    if not batch:
        first = results[0]
        parts = f'"outcome":"{first.code.name if isinstance(first, Refusal) else "ok"}"'
    elif any(isinstance(result, Refusal) for result in results):
        codes = ",".join(f'"{result.code.name}"' if isinstance(result, Refusal) else '"ok"' for result in results)
        parts = f'"outcome":"partial","items":[{codes}]'
    else:
        parts = f'"outcome":"ok","items":{len(results)}'
    for name, fact in outcome.facts:
        parts += f',"{name}":{fact:d}' if isinstance(fact, int) else f',"{name}":"{_escape(fact)}"'
    return f'{{"request":"{request}",{fragment},{parts}}}'


def record_refusal(fragment: str, request: str, code: str) -> str:
    """The audit record of a request that was refused as a whole."""
    return f'{{"request":"{request}",{fragment},"outcome":"{code}"}}'


def _escape(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return json.dumps(text)[1:-1]
