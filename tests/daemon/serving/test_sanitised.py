"""Nothing leaks out of an error: secrets, paths of the server and foreign texts are planted wherever something can go
wrong, and looked for in every form in which an error leaves: both wire forms, problem+json, google.rpc.Status, batch
items, the audit log. In openk's own log, where foreign texts belong, no secret is.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk.wire.codes import CODES
from openk.wire.problem import problem_of
from openk.wire.rpc_status import status_bytes, status_json
from openk_daemon.audit.seam import AuditDamaged, AuditUnavailable, EntryTooLarge
from openk_daemon.call import After, Call, Handler, Outcome, Sealed
from openk_daemon.hierarchy.records import RecordError
from openk_daemon.hierarchy.refusals import damaged, refusing
from openk_daemon.identity.caller import Caller
from openk_daemon.pipeline import Pipeline, Results
from openk_daemon.policy.decision import Decision, Resource
from openk_daemon.refusal import Refusal
from openk_daemon.reply import encode, encode_error
from openk_daemon.store import seam as store
from openk_hsm import errors as hsm
from openk_hsm.frames import _KINDS
from openk_memory.errors import Exhausted
from openk_memory.pool import Pool
from tests.daemon.serving.kit import FreePolicy, HeldLedger, answer, prepared, take_pool
from tests.support.logs import Captured, captured

SECRET = b"hunter2-secret"
PATH = "/var/lib/openk/hidden-path"
TEXT = "foreign-words"
STORE_ERRORS = tuple(
    kind for kind in vars(store).values() if isinstance(kind, type) and issubclass(kind, store.StoreError)
)
PLACES = ("handler", "refusing", "item", "describe", "policy", "decision", "commit", "after", "forget")


@cache
def _pool() -> Pool:
    return take_pool(1 << 20)


def told(secret: bytes) -> str:
    """What a careless error says."""
    return f"{TEXT}: {PATH}: {len(secret)} bytes"


class Talkative(Exception):
    """Keeps a secret in its arguments, its notes and its `__str__`."""

    def __str__(self) -> str:
        return told(SECRET)


def foreign() -> st.SearchStrategy[Exception]:
    text = told(SECRET)
    view = memoryview(SECRET)
    made: list[Callable[[], Exception]] = [
        lambda: OSError(13, text, PATH),
        lambda: ValueError(text),
        lambda: ValueError(text, SECRET),
        lambda: KeyError(SECRET),
        lambda: RuntimeError(view),
        lambda: UnicodeDecodeError("utf-8", SECRET, 0, 1, text),
        lambda: msgspec.ValidationError(text),
        lambda: RecordError(text),
        lambda: Talkative(SECRET),
        lambda: ExceptionGroup(text, [ValueError(SECRET), OSError(2, text, PATH)]),
        lambda: Exhausted(text, requested=5, in_use=4, capacity=4, owner=1, possible=True),
        lambda: Exhausted(text, requested=5, in_use=4, capacity=4, owner=1, possible=False),
        lambda: AuditUnavailable(text),
        lambda: AuditDamaged(text),
        lambda: EntryTooLarge(text),
        lambda: damaged("key"),
        *[lambda kind=kind: kind(text, device=f"CKR_{TEXT}", retry_after=1.0) for kind in {*_KINDS.values()}],  # type: ignore[misc]  # a default binds the loop's value
        *[lambda kind=kind: kind(text) for kind in STORE_ERRORS],  # type: ignore[misc]
    ]
    return st.sampled_from(made).map(lambda make: make())


@st.composite
def errors(draw: st.DrawFn) -> Exception:
    """A foreign error, perhaps with others behind it, perhaps with notes."""
    error = draw(foreign())
    for behind in draw(st.lists(foreign(), max_size=3)):
        behind.__cause__, error = error, behind
    if draw(st.booleans()):
        error.add_note(told(SECRET))
    return error


@dataclass
class Trial:
    pipeline: Pipeline
    ledger: HeldLedger
    handler: Handler


class BrokenPolicy(FreePolicy):
    error: Exception | None = None

    def decide(self, caller: Caller, action: str, resource: Resource) -> Decision:
        if self.error is not None:
            raise self.error
        return super().decide(caller, action, resource)


def stage(place: str, error: Exception, logged: Captured) -> Trial:
    """A pipeline in which `error` happens at `place`."""
    policy, ledger, pool = BrokenPolicy(), HeldLedger(), _pool()

    def fail() -> None:
        raise error

    async def describe(_name: str) -> tuple[tuple[str, str], ...]:
        if place == "describe":
            raise error
        return ()

    async def handle(call: Call) -> Outcome:
        if place in ("handler", "refusing"):
            raise error
        if place == "item":
            item = error if isinstance(error, Refusal) else Refusal("internal")
            item.__cause__ = error
            return Outcome((item, {"plaintext": 1}))
        step = After(fail if place == "after" else lambda: None, fail if place == "forget" else None)
        return Outcome([{"plaintext": Sealed(pool.lease(16), 16)} for _ in call.items], after=(step,))

    if place == "policy":
        policy.error = error
    elif place == "decision":
        policy.decisions["key.decrypt"] = Decision(False, (), (told(SECRET), f"{PATH}: {TEXT}"))
    elif place in ("commit", "forget"):
        ledger.broken = [error]
    handler = refusing(handle) if place == "refusing" else handle
    return Trial(Pipeline(policy, ledger, describe, logged.log), ledger, handler)


def leaves(results: Results | Refusal, batch: bool) -> bytes:
    """Every form in which it could leave."""
    pool = _pool()
    if not isinstance(results, Refusal):
        out = encode(1, results, batch, "map", "r-1", pool, 7)
        if isinstance(out, bytes):
            return out
        with out:
            return bytes(out.view)
    forms = [encode_error(1, results, "pair", "r-1"), encode_error(1, results, "map", "r-1")]
    facts = {"request": "r-1", "retry_after": results.retry_after, "details": results.details}
    problem = problem_of(results.code, results.message, **facts)  # type: ignore[arg-type]  # as its parameters are
    forms += [problem.body, repr(problem.headers).encode()]
    forms += [status_bytes(results.code, results.message, **facts)]  # type: ignore[arg-type]
    forms += [json.dumps(status_json(results.code, results.message, **facts)).encode()]  # type: ignore[arg-type]
    forms += [str(results).encode(), repr(results.__cause__).encode(), repr(results.__context__).encode()]
    return b"\n".join(forms)


def found_in(data: bytes, *canaries: bytes) -> list[bytes]:
    """Which are there: as they are, in hexadecimal, in base64 at each of its three alignments."""
    found: list[bytes] = []
    for canary in canaries:
        shifted = [base64.b64encode(b"x" * shift + canary)[4:-4] for shift in range(3)]
        if any(form in data for form in (canary, canary.hex().encode(), *shifted)):
            found.append(canary)
    return found


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=30, deadline=None)
@given(error=errors(), batch=st.booleans())
def test_no_error_tells_what_lies_behind_it(place: str, error: Exception, batch: bool) -> None:
    with captured() as logged:
        _try(place, error, batch or place == "item", logged)


def _try(place: str, error: Exception, batch: bool, logged: Captured) -> None:
    trial = stage(place, error, logged)
    made = prepared("key.decrypt", trial.handler)
    made.resource = None if place == "describe" else made.resource
    done = answer(trial.pipeline, made, batch=batch, items=2 if batch else 1)
    assert done.results is not None
    outside = leaves(done.results, batch)
    outside += "\n".join(trial.ledger.entries).encode()
    assert found_in(outside, SECRET, PATH.encode(), TEXT.encode()) == []
    assert found_in(logged.text().encode(), SECRET) == [], "foreign words may be logged, secrets not"
    if isinstance(done.results, Refusal):
        assert done.results.code.name in CODES


@pytest.mark.parametrize("place", ["handler", "refusing", "item"])
def test_a_careless_refusal_would_be_found(place: str) -> None:
    """The control: the search does find what a mistake would let out."""
    with captured() as logged:
        _find_the_careless(place, logged)


def _find_the_careless(place: str, logged: Captured) -> None:
    trial = stage(place, Refusal("hsm.refused", f"{told(SECRET)} {SECRET.hex()}"), logged)
    done = answer(trial.pipeline, prepared("key.decrypt", trial.handler), batch=place == "item", items=2)
    assert done.results is not None
    assert len(found_in(leaves(done.results, place == "item"), SECRET, PATH.encode(), TEXT.encode())) == 3


def test_the_whole_story_is_in_the_log_under_the_request() -> None:
    """Wrapped errors keep their chain, outermost first, with places in the code and the device's own word."""

    async def handle(_call: Call) -> Outcome:
        try:
            raise OSError(13, "no access", PATH)
        except OSError as error:
            raise hsm.Unavailable("cannot reach it", device="CKR_DEVICE_REMOVED") from error

    made = prepared("key.decrypt", refusing(handle), "payments/card")
    made.fragment += ',"key":"payments/card"'
    with captured() as logged:
        refusal = answer(Pipeline(FreePolicy(), HeldLedger(), _nothing, logged.log), made).refusal
        line = logged.one("request.refused", level="warning")
    assert (refusal.code.name, refusal.message) == ("hsm.unavailable", CODES["hsm.unavailable"].meaning)
    chain = line["error"]
    assert isinstance(chain, list)
    assert [part["type"].rpartition(".")[2] for part in chain] == ["Refusal", "Unavailable", "PermissionError"]
    assert chain[1]["device"] == "CKR_DEVICE_REMOVED"
    assert any("test_sanitised.py" in place for place in chain[2]["at"])
    said = {name: line[name] for name in ("request", "method", "uid", "key", "vault", "code")}
    assert said == {
        "request": "r-1", "method": "key.decrypt", "uid": 1000, "key": "payments/card", "vault": "payments",
        "code": "hsm.unavailable",
    }  # fmt: skip


async def _nothing(_name: str) -> tuple[tuple[str, str], ...]:
    return ()
