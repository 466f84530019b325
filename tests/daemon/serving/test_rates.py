"""Rate limits: what a bucket gives, who shares one, what a flood gets and what it leaves to others."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from openk_daemon import rates as module
from openk_daemon.call import Call, Outcome
from openk_daemon.connection import STRIKES
from openk_daemon.identity.caller import Caller
from openk_daemon.rates import BUCKETS_MOST, SWEPT_FROM, Bucket, Rates, Rule, admit
from openk_daemon.refusal import Refusal
from openk_daemon.serve import SWEEP
from tests.daemon.serving.kit import Core, FreePolicy, HeldLedger, answer, frame, plain_pipeline, prepared
from tests.support.clock import Clock
from tests.support.logs import Captured

ADA = Caller(1000, 1000, (1000,), "web.service", None, None)
BOB = Caller(1001, 1001, (1001,), "web.service", None, None)
ROOT = Caller(0, 0, (0,), None, None, None, administrator=True)


# --- a bucket ---


@settings(deadline=None)
@given(
    per_second=st.floats(0.01, 1000),
    burst=st.integers(1, 100),
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 256)), max_size=60),
)
def test_a_bucket_never_gives_more_than_its_rate(
    per_second: float, burst: int, steps: list[tuple[float, int]]
) -> None:
    """Over any span: at most what was there, what came in, and one batch on credit, which is paid back."""
    bucket = Bucket(Rule("r", per_second, burst), 0.0)
    now = given_out = 0.0
    largest = 0
    for pause, cost in steps:
        now += pause
        wait = bucket.wait(cost, now)
        assert wait >= 0.0
        if wait:
            now += wait * 1.000001 + 1e-6
            assert bucket.wait(cost, now) == 0.0, "waiting so long is enough"
        bucket.tokens -= cost
        given_out += cost
        largest = max(largest, cost)
        assert given_out <= burst + now * per_second + max(0, largest - burst) + 1e-3


def test_a_batch_larger_than_the_burst_is_let_in_and_paid_back() -> None:
    bucket = Bucket(Rule("r", 10.0, 5), 0.0)
    assert bucket.wait(25, 0.0) == 0.0
    bucket.tokens -= 25
    assert bucket.wait(1, 0.0) == pytest.approx(2.1)
    assert bucket.wait(25, 2.5) == 0.0


# --- rules ---


def test_who_shares_a_bucket() -> None:
    def same(per: tuple[module.Part, ...], first: tuple[Caller, str, str], second: tuple[Caller, str, str]) -> bool:
        rates = Rates([Rule("r", 1.0, 1, per)])
        return rates.buckets(*first)[0] is rates.buckets(*second)[0]

    sign, mac = (ADA, "key.sign", "v"), (ADA, "key.mac", "w")
    bob = (BOB, "key.sign", "v")
    assert same(("uid",), sign, mac)
    assert not same(("uid",), sign, bob)
    assert same(("unit",), sign, bob)
    assert not same(("method",), sign, mac)
    assert not same(("vault",), sign, mac)
    assert same(("vault", "method"), sign, bob)
    assert not same(("vault", "uid"), sign, bob)
    assert same((), (ADA, "a", "b"), (BOB, "c", "d"))


@pytest.mark.parametrize(
    ("rule", "concerned"),
    [
        (Rule("r", 1.0, 1), True),
        (Rule("r", 1.0, 1, uids=frozenset({1001})), False),
        (Rule("r", 1.0, 1, uids=frozenset({1000, 1001})), True),
        (Rule("r", 1.0, 1, units=frozenset({"web.service"})), True),
        (Rule("r", 1.0, 1, units=frozenset({"db.service"})), False),
        (Rule("r", 1.0, 1, methods=frozenset({"key.sign"})), True),
        (Rule("r", 1.0, 1, methods=frozenset({"key.mac"})), False),
        (Rule("r", 1.0, 1, vaults=frozenset({"payments"})), True),
        (Rule("r", 1.0, 1, vaults=frozenset({"other"})), False),
    ],
)
def test_whom_a_rule_concerns(rule: Rule, concerned: bool) -> None:
    assert bool(Rates([rule]).buckets(ADA, "key.sign", "payments")) is concerned


def test_administrators_are_limited_only_where_it_says_so() -> None:
    assert not Rates([Rule("r", 1.0, 1)]).buckets(ROOT, "key.sign", "v")
    assert Rates([Rule("r", 1.0, 1, administrators=True)]).buckets(ROOT, "key.sign", "v")


def test_a_request_needs_every_rule_and_a_refused_one_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    rates = Rates([Rule("wide", 1.0, 10), Rule("narrow", 1.0, 1)], clock)
    buckets = rates.buckets(ADA, "key.sign", "v")
    admit(buckets, 1)
    for _ in range(3):
        with pytest.raises(Refusal) as caught:
            admit(buckets, 1)
        assert caught.value.code.name == "request.rate_limited"
        assert caught.value.retry_after == pytest.approx(1.0, abs=0.01)
        assert caught.value.details == {"limit": "narrow"}
    assert buckets[0].tokens == 9.0
    assert rates.refused() == {"wide": 0, "narrow": 3}
    clock.now += 1.0
    admit(buckets, 1)


# --- bounds ---


def test_buckets_are_forgotten_when_full_and_not_held() -> None:
    clock = Clock()
    rates = Rates([Rule("r", 1.0, 2, ("vault",))], clock)
    held = rates.buckets(ADA, "key.sign", "v0")
    for number in range(SWEPT_FROM):
        rates.buckets(ADA, "key.sign", f"v{number}")
    owing = rates.buckets(ADA, "key.sign", "v7")[0]
    owing.tokens = 0.0
    owing.refused = 5
    del owing
    rates.sweep()
    assert len(rates) == 2
    assert rates.buckets(ADA, "key.sign", "v0") == held
    clock.now += 2.0
    for number in range(SWEPT_FROM):
        rates.buckets(ADA, "key.sign", f"v{number}")
    rates.sweep()
    assert len(rates) == 1
    assert rates.refused() == {"r": 5}, "what was counted stays counted"


def test_invented_names_do_not_fill_memory() -> None:
    rates = Rates([Rule("r", 0.001, 1, ("vault",))])
    for number in range(BUCKETS_MOST + 50):
        rates.buckets(ADA, "key.sign", f"v{number}")[0].tokens = 0.0
    assert len(rates) <= BUCKETS_MOST + 1
    assert rates.buckets(ADA, "key.sign", "one more")[0].tokens == 0.0, "newcomers share one, which is empty already"


def test_other_rules_leave_the_buckets_of_those_that_stay() -> None:
    stays, goes = Rule("stays", 1.0, 3), Rule("goes", 1.0, 3)
    rates = Rates([stays, goes])
    kept, gone = rates.buckets(ADA, "key.sign", "v")
    kept.tokens, gone.refused = 1.0, 2
    rates.replace([stays, Rule("new", 5.0, 5)])
    assert rates.buckets(ADA, "key.sign", "v")[0] is kept
    assert [bucket.rule for bucket in rates.buckets(ADA, "key.sign", "v")] == ["stays", "new"]
    assert rates.refused() == {"stays": 0, "new": 0, "goes": 2}
    rates.replace([Rule("stays", 2.0, 3)])
    assert rates.buckets(ADA, "key.sign", "v")[0] is not kept


# --- in the pipeline ---


def test_the_limit_comes_before_policy_and_is_recorded(logged: Captured) -> None:
    ledger, policy = HeldLedger(), FreePolicy()
    pipeline = plain_pipeline(ledger, policy, logged.log)
    calls: list[Call] = []

    async def handle(call: Call) -> Outcome:
        calls.append(call)
        return Outcome(tuple({} for _ in call.items))

    made = prepared("key.mac", handle)
    made.buckets = Rates([Rule("r", 0.001, 4)]).buckets(ADA, "key.mac", "v")
    answer(pipeline, made, batch=True, items=3)
    assert answer(pipeline, made, batch=True, items=3).refusal.code.name == "request.rate_limited"
    answer(pipeline, made)
    assert answer(pipeline, made).refusal.code.name == "request.rate_limited"
    assert len(calls) == len(policy.asked) == 2
    outcomes = [entry.partition('"outcome":')[2].partition(",")[0].strip('}"') for entry in ledger.entries]
    assert outcomes == ["ok", "request.rate_limited", "ok", "request.rate_limited"]


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    made = Core(tmp_path)
    async with made.serve():
        yield made


async def test_whoever_floods_is_read_from_slowly_and_others_are_served(core: Core) -> None:
    """The flooder's connection is paused after some refusals: few records, and every request of the other answered."""
    core.rates.replace([Rule("r", 5.0, 5, ("method",), methods=frozenset({"system.ping"}), administrators=True)])
    flooder, other = core.client(), core.client()
    refused = answered = 0
    flood = b"".join(frame(number, "system.ping") for number in range(4096))
    with trio.move_on_after(4 * SWEEP):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flooder.send, flood)

            async def drain() -> None:
                nonlocal refused
                while True:
                    error = (await flooder.read())[1]
                    refused += error is not None

            nursery.start_soon(drain)
            while True:
                assert (await other.call("system.methods"))[1] is None
                answered += 1
                await trio.sleep(0.005)
    assert answered > 10
    # a look each SWEEP, and what was in flight when it struck
    assert STRIKES <= refused <= 6 * (STRIKES + core.config.limits.in_flight)
    assert core.metrics.reads_paused >= 2
    core.rates.replace([])
    core.server.apply(core.config)


async def test_a_paused_connection_goes_on_and_new_rates_hold_at_once(core: Core) -> None:
    core.rates.replace([Rule("r", 0.001, 1, administrators=True)])
    client = core.client()
    await client.send(b"".join(frame(number, "system.ping") for number in range(STRIKES + 8)))
    answers = [await client.read() for _ in range(STRIKES + 8)]
    assert sum(error is None for _, error, _ in answers) == 1
    assert len({msgid for msgid, _, _ in answers}) == STRIKES + 8
    core.rates.replace([])
    core.server.apply(core.config)
    assert (await client.call("system.ping"))[1] is None


async def test_what_cannot_be_taken_counts_too(core: Core) -> None:
    core.rates.replace([Rule("r", 0.001, 2, administrators=True)])
    client = core.client()
    codes = []
    for _ in range(4):
        _, error, _ = await client.call("no.such")
        assert isinstance(error, list)
        codes.append(str(error[1]).partition(":")[0])
    assert codes == ["request.unknown_method"] * 2 + ["request.rate_limited"] * 2


async def test_one_user_has_so_many_connections_and_no_more(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    from msgspec.structs import replace  # noqa: PLC0415 - as in the kit

    monkeypatch.setattr(core.server._identifier, "_administrators", frozenset())
    limits = replace(core.config.limits, connections_per_uid=2)
    core.server.apply(replace(core.config, limits=limits))
    first, second, third = core.client(), core.client(), core.client()
    assert (await first.call("system.ping"))[1] is None
    assert (await second.call("system.ping"))[1] is None
    with pytest.raises((EOFError, OSError)):
        await third.call("system.ping")
    assert '"connection.refused"' in core.logged.text()
    assert f'"uid": {os.getuid()}' in core.logged.text()
    first.close()
    await core.until(lambda: core.server.connections == 1)
    assert (await core.client().call("system.ping"))[1] is None
