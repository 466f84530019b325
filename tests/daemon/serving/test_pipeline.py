"""The pipeline's promises: deny unless allowed, durable before answered, nothing half-done, no foreign text outside."""

from __future__ import annotations

import json
from time import monotonic

import pytest

from openk_daemon.audit.seam import AuditDamaged, AuditUnavailable, EntryTooLarge
from openk_daemon.call import After, Arguments, Call, Handler, Outcome, Sealed
from openk_daemon.hierarchy.refusals import refuse
from openk_daemon.observe.log import Category, Level
from openk_daemon.pipeline import Pipeline
from openk_daemon.policy.decision import Decision
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import Conflict, Full, Write
from openk_hsm.errors import HsmError
from openk_hsm.pending import Pending
from openk_memory.pool import Pool
from tests.daemon.serving.kit import FreePolicy, HeldLedger, answer, plain_pipeline, prepared, take_pool
from tests.support.custody import PEER, run
from tests.support.logs import Captured

WRITE = Write("key", b"id", 0, b"body")
CANARY = "canary-7731"


class Bench:
    """A pipeline, and a handler that does what the test says and tells what became of it."""

    def __init__(self, logged: Captured) -> None:
        self.ledger = HeldLedger()
        self.policy = FreePolicy()
        self.logged = logged
        self.pipeline: Pipeline = plain_pipeline(self.ledger, self.policy, logged.log.child(Category.REQUESTS))
        self.pool: Pool = take_pool(1 << 20)
        self.calls = 0
        self.applied: list[str] = []
        self.fault: Exception | None = None
        self.fact: str | int = 3

    async def handle(self, _call: Call) -> Outcome:
        self.calls += 1
        if self.fault is not None:
            raise self.fault
        lease = self.pool.lease(16)
        step = After(lambda: self.applied.append("applied"), lambda: self.applied.append("forgotten"))
        return Outcome(({"plaintext": Sealed(lease, 16)},), (WRITE,), (("version", self.fact),), (step,))

    def told(self) -> list[dict[str, object]]:
        return [json.loads(entry) for entry in self.ledger.entries]


@pytest.fixture
def bench(logged: Captured) -> Bench:
    return Bench(logged)


def release(results: object) -> None:
    assert isinstance(results, tuple)
    for result in results:
        for value in result.values():
            value.lease.release()


def test_answers_only_what_is_durable(bench: Bench) -> None:
    bench.ledger.hold = True
    request = answer(bench.pipeline, prepared("key.decrypt", bench.handle))
    assert bench.calls == 1
    assert request.results is None
    assert bench.applied == []
    bench.ledger.let_go()
    assert bench.applied == ["applied"]
    release(request.results)
    assert bench.told() == [
        {"request": "r-1", "method": "key.decrypt", "uid": 1000, "outcome": "ok", "version": 3}
    ]
    assert bench.pool.in_use == 0


def test_a_refusal_too_is_answered_only_when_durable(bench: Bench) -> None:
    bench.ledger.hold = True
    bench.fault = Refusal("key.unknown")
    request = answer(bench.pipeline, prepared("key.decrypt", bench.handle))
    assert request.results is None
    bench.ledger.let_go()
    assert request.refusal.code.name == "key.unknown"
    assert bench.told()[0]["outcome"] == "key.unknown"


def test_a_denied_request_reaches_no_handler(bench: Bench) -> None:
    bench.policy.decisions["key.decrypt"] = Decision(False, ("no-decrypt",))
    request = answer(bench.pipeline, prepared("key.decrypt", bench.handle, "payments/card"))
    assert bench.calls == 0
    assert request.refusal.code.name == "policy.denied"
    assert request.refusal.message == "key.decrypt on payments/card: forbidden by no-decrypt"
    assert request.refusal.details == {"policies": ["no-decrypt"]}
    assert bench.told()[0]["outcome"] == "policy.denied"


def test_an_error_while_deciding_is_a_denial_and_its_text_stays_here(bench: Bench) -> None:
    bench.policy.decisions["key.decrypt"] = Decision(False, (), (CANARY,))
    request = answer(bench.pipeline, prepared("key.decrypt", bench.handle))
    assert bench.calls == 0
    assert request.refusal.code.name == "policy.denied"
    assert CANARY not in str(request.refusal)
    assert CANARY in bench.logged.text()


def test_a_mistake_of_ours_is_internal_and_its_text_stays_here(bench: Bench) -> None:
    bench.fault = KeyError(CANARY)
    request = answer(bench.pipeline, prepared("key.decrypt", bench.handle))
    assert request.refusal.code.name == "internal"
    assert CANARY not in f"{request.refusal} {request.refusal.details}"
    assert "KeyError" in bench.logged.text()
    assert bench.told()[0]["outcome"] == "internal"


def test_what_lies_behind_a_refusal_goes_to_the_log_and_no_further(bench: Bench) -> None:
    async def handle(_call: Call) -> Outcome:
        try:
            raise HsmError("what the device said")
        except HsmError as error:
            raise Refusal("hsm.refused") from error

    request = answer(bench.pipeline, prepared("key.decrypt", handle))
    assert request.refusal.code.name == "hsm.refused"
    assert "HsmError" in bench.logged.text()
    assert request.refusal.__cause__ is None
    assert request.refusal.__traceback__ is None


def test_what_lies_behind_one_item_goes_to_the_log_and_no_further(bench: Bench) -> None:
    async def handle(_call: Call) -> Outcome:
        try:
            raise HsmError("what the device said", device="CKR_FUNCTION_FAILED")
        except HsmError as error:
            return Outcome((refuse(error),))

    request = answer(bench.pipeline, prepared("key.decrypt", handle))
    assert isinstance(request.results, tuple)
    (refusal,) = request.results
    assert refusal.code.name == "hsm.refused"
    assert bench.logged.text().count("CKR_FUNCTION_FAILED") == 1
    assert refusal.__cause__ is None
    assert refusal.__traceback__ is None


@pytest.mark.parametrize("error", [AuditUnavailable(CANARY), AuditDamaged(CANARY)])
def test_without_a_log_nothing_is_admitted(bench: Bench, error: AuditUnavailable | AuditDamaged) -> None:
    bench.ledger.always = error
    for handler in (bench.handle, _refusing):
        request = answer(bench.pipeline, prepared("key.decrypt", handler))
        assert request.refusal.code.name in {error.code, "audit.unavailable"}
        assert CANARY not in str(request.refusal)
    assert bench.applied == ["forgotten"]
    assert bench.pool.in_use == 0
    assert bench.ledger.entries == []
    assert bench.ledger.store.log_size() == 0


async def _refusing(_call: Call) -> Outcome:
    raise Refusal("key.unknown")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Conflict(CANARY), "store.conflict"),
        (Full(CANARY), "store.full"),
        (EntryTooLarge(CANARY), "request.too_large"),
        (RuntimeError(CANARY), "internal"),
    ],
)
def test_what_is_not_committed_is_taken_back_and_recorded_as_failed(bench: Bench, error: Exception, code: str) -> None:
    bench.ledger.broken = [error]
    request = answer(bench.pipeline, prepared("key.decrypt", bench.handle))
    assert request.refusal.code.name == code
    assert CANARY not in str(request.refusal)
    assert bench.applied == ["forgotten"]
    assert bench.pool.in_use == 0
    assert [entry["outcome"] for entry in bench.told()] == [code]


def test_a_real_conflict_in_the_store(bench: Bench) -> None:
    first = answer(bench.pipeline, prepared("key.decrypt", bench.handle))
    release(first.results)
    second = answer(bench.pipeline, prepared("key.decrypt", bench.handle))
    assert second.refusal.code.name == "store.conflict"
    assert bench.applied == ["applied", "forgotten"]
    assert [entry["outcome"] for entry in bench.told()] == ["ok", "store.conflict"]
    assert bench.pool.in_use == 0


def test_a_step_that_fails_after_the_commit_stops_neither_the_others_nor_the_answer(bench: Bench) -> None:
    def fail() -> None:
        raise KeyError(CANARY)

    async def handle(_call: Call) -> Outcome:
        return Outcome(({},), after=(After(fail, fail), After(lambda: bench.applied.append("second"))))

    request = answer(bench.pipeline, prepared("key.decrypt", handle))
    assert request.results == ({},)
    assert bench.applied == ["second"]
    assert "request.unapplied" in bench.logged.text()
    bench.ledger.broken = [Conflict("no")]
    request = answer(bench.pipeline, prepared("key.decrypt", handle))
    assert request.refusal.code.name == "store.conflict"


def test_a_batch_tells_of_each_item(bench: Bench) -> None:
    async def handle(_call: Call) -> Outcome:
        return Outcome(({}, Refusal("key.ciphertext_invalid"), {}))

    answer(bench.pipeline, prepared("key.decrypt", handle), batch=True, items=3)
    (entry,) = bench.told()
    assert entry["outcome"] == "partial"
    assert entry["items"] == ["ok", "key.ciphertext_invalid", "ok"]


@pytest.mark.parametrize("fact", ['quote " and \\', "lines\nand\0", "ö", True, 7])
def test_records_are_json_whatever_the_facts_are(bench: Bench, fact: str | int) -> None:
    bench.fact = fact
    request = answer(bench.pipeline, prepared("key.decrypt", bench.handle))
    release(request.results)
    assert bench.told()[0]["version"] == fact


def test_a_handler_may_wait_for_what_is_not_there_yet(bench: Bench) -> None:
    waited: Pending[str] = Pending()

    async def handle(_call: Call) -> Outcome:
        return Outcome(({"public": await waited},))

    handler: Handler = handle
    request = answer(bench.pipeline, prepared("key.public", handler))
    assert request.results is None
    assert bench.ledger.entries == []
    waited.resolve("there")
    assert request.results == ({"public": "there"},)


@pytest.mark.parametrize(("method", "category"), [("key.encrypt", "crypto"), ("secret.get", "requests")])
def test_at_debug_each_request_is_told_of_once_with_its_stages(bench: Bench, method: str, category: str) -> None:
    async def handle(_call: Call) -> Outcome:
        return Outcome(({},))

    made = prepared(method, handle)
    levels = bench.logged.log
    levels.set_levels(dict.fromkeys(Category, Level.INFO))
    assert answer(bench.pipeline, made).results == ({},)
    bench.logged.none("request.done")
    levels.set_levels({Category(category): Level.DEBUG})
    assert answer(bench.pipeline, made).results == ({},)
    line = bench.logged.one("request.done", category=category, code="ok", method=method, request="r-1")
    assert {"policy_ms", "audit_ms", "seconds"} <= line.keys()
    bench.policy.decisions[method] = Decision(False, ())
    assert answer(bench.pipeline, made).refusal.code.name == "policy.denied"
    bench.logged.one("request.done")  # a refusal has a line of its own


def test_at_debug_the_only_items_refusal_is_the_requests(bench: Bench) -> None:
    async def handle(_call: Call) -> Outcome:
        return Outcome((Refusal("key.ciphertext_invalid"),))

    bench.logged.log.set_levels({Category.CRYPTO: Level.DEBUG})
    answer(bench.pipeline, prepared("key.decrypt", handle))
    bench.logged.one("request.done", code="key.ciphertext_invalid", request="r-1")


@pytest.mark.parametrize("refused", [False, True])
def test_a_slow_request_is_told_of_however_it_ended(bench: Bench, refused: bool) -> None:
    async def handle(_call: Call) -> Outcome:
        return Outcome(({},))

    bench.pipeline.slow_seconds = 30.0
    code = "policy.denied" if refused else "ok"
    bench.policy.decisions["key.encrypt"] = Decision(not refused, ())
    for began, lines in ((monotonic(), 0), (0.0, 0), (monotonic() - 31.0, 1)):
        made = prepared("key.encrypt", handle)
        run(bench.pipeline.answer(made, Arguments({}), (), False, PEER, "r-1", began))
        assert len(bench.logged.lines("request.slow")) == lines
    line = bench.logged.one("request.slow", code=code)
    assert float(str(line["seconds"])) >= 31.0
