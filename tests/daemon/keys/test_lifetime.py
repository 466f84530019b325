"""How often and how long keys are used: usage counts, opened cached keys, handles, nonces, turns, flights."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk_daemon.hierarchy.flights import Flights, Shared
from openk_daemon.hierarchy.nonces import Nonces
from openk_daemon.hierarchy.records import KEY_USAGE
from openk_daemon.hierarchy.sealing import BLOCK
from openk_daemon.hierarchy.shelf import Shelf
from openk_daemon.hierarchy.turns import Turns
from openk_daemon.keys.keyring import KeyLimits
from openk_daemon.keys.usage import FIRST_BLOCK
from openk_daemon.refusal import Refusal
from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Full
from openk_hsm.errors import HsmError, TokenFull, Unavailable
from openk_hsm.inline import InlineLane
from openk_hsm.pending import Pending, drive
from openk_hsm.seam import OpCode
from openk_hsm.serving import request_id
from openk_hsm.software import SoftwareBackend
from tests.support.custody import POOL, Custody, make_call, records, run
from tests.support.heap import copies, masked, wipe
from tests.support.lanes import SteeredLane


def uses(custody: Custody) -> object:
    versions = custody.call("key.describe", key="v/k")["versions"]
    assert isinstance(versions, list)
    return versions[-1]["uses"]


def stocked(limits: KeyLimits | None = None, protection: str = "wrapped", lane: SteeredLane | None = None) -> Custody:
    custody = Custody(lane=lane, limits=limits)
    custody.call("vault.create", vault="v")
    custody.call("key.create", key="v/k", algorithm="aes-256-gcm", protection=protection)
    return custody


def encrypt(custody: Custody, count: int = 1) -> None:
    if count == 1:
        custody.call("key.encrypt", key="v/k", input=b"x")
        return
    for result in custody.batch("key.encrypt", [{"input": b"x"}] * count, key="v/k"):
        if isinstance(result, Refusal):
            raise result


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 100, FIRST_BLOCK - 1, FIRST_BLOCK, FIRST_BLOCK + 1, "crash", "stop"]), max_size=12)
)
def test_uses_are_never_under_counted(steps: list[int | str]) -> None:
    """Whatever crashes: the count on disk is at least what was done, and a clean stop makes it exact."""
    custody = stocked()
    done = 0
    exact = True
    for step in steps:
        if isinstance(step, int):
            encrypt(custody, step)
            done += step
        else:
            if step == "stop":
                run(custody.keyring.close())
            else:
                exact = False
            custody = custody.again()
        counted = uses(custody)
        assert isinstance(counted, int)
        assert counted >= done
        if exact:
            assert counted == done


def test_counting_costs_one_commit_a_block() -> None:
    custody = stocked()
    store = custody.store
    assert isinstance(store, MemoryStore)
    for _ in range(40):
        encrypt(custody, 100)
    state = custody.keyring.loaded("v/k")
    assert state is not None
    assert records(store, KEY_USAGE)[state.id + b"\0\0\0\1"].version <= 4
    assert uses(custody) == 4000


def test_the_limit_blocks_and_rotation_helps() -> None:
    custody = stocked(KeyLimits(gcm_uses=5))
    encrypt(custody, 4)
    with pytest.raises(Refusal) as refusal:
        encrypt(custody, 2)
    assert refusal.value.code.name == "key.exhausted"
    assert refusal.value.details == {"limit": 5}
    encrypt(custody)
    for _ in range(3):
        with pytest.raises(Refusal) as refusal:
            encrypt(custody)
        assert refusal.value.code.name == "key.exhausted"
    custody.call("key.rotate", key="v/k")
    encrypt(custody, 5)


def test_the_limit_holds_across_a_crash() -> None:
    limits = KeyLimits(gcm_uses=FIRST_BLOCK)
    custody = stocked(limits)
    encrypt(custody, 10)
    later = custody.again(limits)
    with pytest.raises(Refusal) as refusal:
        encrypt(later)
    assert refusal.value.code.name == "key.exhausted"


@pytest.mark.parametrize("method", ["key.wrap", "key.data_key"])
def test_wrapping_counts_too(method: str) -> None:
    limits = KeyLimits(gcm_uses=2)
    custody = Custody(limits=limits)
    custody.call("vault.create", vault="v")
    custody.call("key.create", key="v/k", algorithm="aes-256-gcm", purpose="wrap")
    given_ = {"input": b"x"} if method == "key.wrap" else {}
    custody.batch(method, [given_] * 2, key="v/k")
    with pytest.raises(Refusal) as refusal:
        custody.call(method, key="v/k", **given_)
    assert refusal.value.code.name == "key.exhausted"


def test_a_block_that_cannot_be_made_durable_is_not_used() -> None:
    custody = stocked()
    store = custody.store
    assert isinstance(store, MemoryStore)
    later = custody.again()
    later.call("key.describe", key="v/k")
    store.fail_with(Full("no space"))
    for _ in range(3):
        with pytest.raises(Refusal) as refusal:
            later.outcome("key.encrypt", None, key="v/k", input=b"x")
        assert refusal.value.code.name == "store.full"
    store.fail_with(None)
    assert uses(later) == FIRST_BLOCK
    encrypt(later)
    assert uses(later) == FIRST_BLOCK + 1


def opened(custody: Custody) -> int:
    return len(custody.keyring.openings)


def test_cached_keys_are_wiped_in_time() -> None:
    custody = stocked(KeyLimits(cached_seconds=300), "cached")
    encrypt(custody)
    assert (opened(custody), custody.keyring.sweep()) == (1, 0)
    assert POOL.in_use > 0
    custody.clock.pass_(299)
    assert custody.keyring.sweep() == 0
    encrypt(custody)
    custody.clock.pass_(1)
    assert custody.keyring.sweep() == 1  # use does not prolong it
    assert POOL.in_use == 0
    encrypt(custody)
    assert opened(custody) == 1
    run(custody.keyring.close())
    assert POOL.in_use == 0


def test_an_expired_key_is_not_used_even_before_it_is_swept() -> None:
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    custody = stocked(KeyLimits(cached_seconds=300), "cached", lane)
    encrypt(custody)
    lane.operations.clear()
    custody.clock.pass_(300)
    encrypt(custody)
    assert [operation.code for operation in lane.operations] == [OpCode.DECRYPT]
    assert lane.operations[0].into is not None
    custody.keyring.openings.clear()


def test_cached_keys_are_opened_again_after_their_uses() -> None:
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    custody = stocked(KeyLimits(cached_uses=3), "cached", lane)
    lane.operations.clear()
    for _ in range(7):
        encrypt(custody)
    encrypt(custody, 10)  # a batch larger than that is served whole
    assert [operation.code for operation in lane.operations].count(OpCode.DECRYPT) == 4
    custody.keyring.openings.clear()


def test_cached_keys_work_while_the_hsm_is_away() -> None:
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    custody = stocked(None, "cached", lane)
    encrypt(custody)
    lane.fail = lambda _operation: Unavailable("gone", retry_after=1.0)
    nonces = set()
    for _ in range(600):  # more than a block of nonces
        sealed = custody.call("key.encrypt", key="v/k", input=b"x")["ciphertext"]
        assert isinstance(sealed, bytes)
        nonces.add(sealed[23:35])
    assert len(nonces) == 600
    custody.keyring.openings.clear()
    with pytest.raises(Refusal) as refusal:
        encrypt(custody)
    assert (refusal.value.code.name, refusal.value.retry_after) == ("hsm.unavailable", 1.0)


def test_a_wiped_key_is_nowhere() -> None:
    custody = stocked(None, "cached")
    encrypt(custody)
    state = custody.keyring.loaded("v/k")
    assert state is not None
    assert state.newest.opened is not None
    secret = bytearray(state.newest.opened.lease.view)
    mask = masked(secret)
    wipe(secret)
    assert copies(mask) >= 1
    custody.keyring.openings.clear()
    assert copies(mask) == 0


def test_no_more_cached_keys_are_open_than_allowed() -> None:
    custody = Custody(limits=KeyLimits(cached_open=2))
    custody.call("vault.create", vault="v")
    for i in range(4):
        custody.call("key.create", key=f"v/{i}", algorithm="hmac-sha-256", protection="cached")
        custody.call("key.mac", key=f"v/{i}", input=b"x")
    assert opened(custody) == 2
    custody.keyring.openings.clear()


def test_handles_of_keys_long_unused_are_given_back() -> None:
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    custody = Custody(lane=lane, limits=KeyLimits(kept=2), vaults_kept=1)
    custody.call("vault.create", vault="v")
    macs = {}
    for i in range(4):
        custody.call("key.create", key=f"v/{i}", algorithm="hmac-sha-256")
        macs[i] = custody.call("key.mac", key=f"v/{i}", input=b"x")["mac"]
    assert len(lane.unloaded) == 2
    custody.call("vault.create", vault="w")
    assert len(lane.unloaded) == 5
    for i in range(4):
        assert custody.call("key.mac", key=f"v/{i}", input=b"x")["mac"] == macs[i]


def test_many_requests_for_a_key_that_is_not_loaded_load_it_once() -> None:
    first = stocked()
    assert isinstance(first.lane, InlineLane)
    lane = SteeredLane(first.again().lane)
    custody = Custody(lane=lane, store=first.store)
    lane.held = True
    ends: list[object] = []
    for _ in range(32):
        call = make_call("key.encrypt", None, {"key": "v/k", "input": b"x"})
        drive(custody.handlers["key.encrypt"](call), lambda value, error: ends.append(error or value))
    while lane.release():
        pass
    assert len(ends) == 32
    assert not any(isinstance(end, Exception) for end in ends)
    codes = [operation.code for operation in lane.operations if operation.client == 0]
    assert codes.count(OpCode.MAC) == 2  # the vault's digest and the key's
    assert codes.count(OpCode.DECRYPT) == 5  # vault, key, version, usage, the vault's own usage


@pytest.mark.parametrize("held", [False, True])
def test_nonces(held: bool) -> None:
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    nonces = Nonces(lane)
    lane.held = held
    drawn = [nonces.take() for _ in range(2000)]
    lane.release()
    drawn += [nonces.take() for _ in range(500)]
    assert len(set(drawn)) == 2500
    assert {len(nonce) for nonce in drawn} == {12}
    assert len(lane.operations) in range(1, 15)  # asked for ahead, in blocks, one at a time


def test_turns_are_in_order_and_forgotten() -> None:
    turns = Turns()
    order: list[str] = []

    async def take(name: str) -> None:
        await turns.take("thing")
        order.append(name)

    for name in "abc":
        drive(take(name), lambda _value, _error: None)
    drive(_other(turns, order), lambda _value, _error: None)
    assert order == ["a", "other"]
    turns.give("thing")
    turns.give("thing")
    assert order == ["a", "other", "b", "c"]
    turns.ending("thing").apply()
    turns.give("other")
    assert len(turns) == 0


async def _other(turns: Turns, order: list[str]) -> None:
    await turns.take("other")
    order.append("other")


def test_flights_share_answers_and_errors() -> None:
    flights: Flights[str, int] = Flights()
    gate: Pending[int] = Pending()

    async def fly() -> int:
        return await gate

    waiting = [flights.join("a", fly) for _ in range(3)]
    assert not any(pending.settled for pending in waiting)
    gate.resolve(7)
    assert [pending.result() for pending in waiting] == [7, 7, 7]
    gate = Pending()
    failing = [flights.join("a", fly) for _ in range(2)]
    gate.fail(ValueError("no"))
    for pending in failing:
        with pytest.raises(ValueError, match="no"):
            pending.result()


@pytest.mark.parametrize("error", [TokenFull("full", device="CKR_X"), Refusal("store.damaged", details={"record": "k"})])
def test_whoever_shared_a_flight_that_failed_hears_whose_it_was(error: HsmError | Refusal) -> None:
    flights: Flights[str, int] = Flights()
    gate: Pending[int] = Pending()
    failures: list[Exception | None] = []

    async def fly() -> int:
        return await gate

    async def request() -> int:
        return await flights.join("a", fly)

    for number in (7, 8, 9):
        drive(request(), lambda _value, failure: failures.append(failure), number)
    gate.fail(error)
    first, *others = failures
    assert first is error
    for other in others:
        assert isinstance(other, HsmError | Refusal)
        assert (type(other), str(other)) == (type(error), str(error))
        assert str(other.__cause__) == f"request {request_id(7)} asked the HSM, and 3 waited for it"
        assert isinstance(other.__cause__, Shared)
        assert other.__cause__.__cause__ is error
    assert len({id(failure) for failure in failures}) == 3


@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from(["put", "get", "drop"]), st.integers(0, 5)), max_size=40))
def test_a_shelf_forgets_the_longest_unused(room: int, steps: list[tuple[str, int]]) -> None:
    left: list[object] = []
    shelf: Shelf[int, object] = Shelf(room, left.append)
    model: dict[int, object] = {}
    put = 0
    for step, key in steps:
        if step == "put":
            put += 1
            model.pop(key, None)
            model[key] = object()
            shelf.put(key, model[key])
            while len(model) > room:
                del model[next(iter(model))]
        elif step == "get":
            assert shelf.get(key) is model.get(key)
            if key in model:
                model[key] = model.pop(key)
        else:
            shelf.drop(key)
            model.pop(key, None)
        assert sorted(map(id, shelf.values())) == sorted(map(id, model.values()))
    shelf.clear()
    assert len(left) == put


def test_registers_are_scrubbed_when_requests_pause() -> None:
    custody = stocked(None, "cached")
    for method, given_ in (
        ("key.encrypt", {"key": "v/k", "input": b"x"}),
        ("secret.put", {"secret": "v/s", "value": b"x"}),
        ("secret.get", {"secret": "v/s"}),
    ):
        custody.keyring.sweep()
        assert not custody.hierarchy.touched
        custody.call(method, **given_)
        assert custody.hierarchy.touched
    custody.keyring.openings.clear()


def test_uses_of_vault_keys_are_counted_and_blocked() -> None:
    """The data keys that seal records have the same limit as clients' keys."""
    custody = Custody()
    custody.call("vault.create", vault="v")
    sealing = custody.hierarchy.sealing
    tally = run(custody.hierarchy.vault("v")).sealer.tally
    assert (tally.reserved, tally.left) == (BLOCK, BLOCK - 1)
    for _ in range(3):
        custody.call("secret.put", secret="v/s", value=b"x")  # a data key and a head
    assert tally.left == BLOCK - 7
    tally.left = 1
    custody.call("secret.put", secret="v/s", value=b"x")
    assert (tally.reserved, tally.left) == (2 * BLOCK, BLOCK - 2)
    later = custody.again()
    later.call("secret.put", secret="v/s", value=b"x")
    tally = run(later.hierarchy.vault("v")).sealer.tally
    assert (tally.reserved, tally.left) == (3 * BLOCK, BLOCK - 3)
    last = custody.again()
    last.hierarchy.sealing = type(sealing)(last.lane, last.hierarchy.nonces, last.store, 3 * BLOCK)
    tally = run(last.hierarchy.vault("v")).sealer.tally
    for _ in range(2):
        with pytest.raises(Refusal) as refusal:
            last.call("key.create", key="v/k", algorithm="ed25519")
        assert refusal.value.code.name == "key.exhausted"
        assert refusal.value.details == {"limit": 3 * BLOCK}
        assert tally.left == 0  # what was refused has used nothing


def test_the_last_uses_of_a_vault_key_are_its_own() -> None:
    """Its limit is reached exactly: a key's two records and the count's own are the last three."""
    custody = Custody()
    custody.call("vault.create", vault="v")
    last = custody.again()
    last.hierarchy.sealing = type(last.hierarchy.sealing)(last.lane, last.hierarchy.nonces, last.store, BLOCK + 3)
    last.call("key.create", key="v/k", algorithm="ed25519")
    tally = run(last.hierarchy.vault("v")).sealer.tally
    assert (tally.reserved, tally.left) == (BLOCK + 3, 0)
    with pytest.raises(Refusal) as refusal:
        last.call("secret.put", secret="v/s", value=b"x")
    assert refusal.value.code.name == "key.exhausted"


def test_counts_are_made_exact_beside_each_other_at_a_stop() -> None:
    """One after the other, each with its own wait for HSM and disk, 600 keys were 11 seconds: the stop was cut off."""
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    custody = stocked(lane=lane)
    for name in ("v/a", "v/b", "v/c"):
        custody.call("key.create", key=name, algorithm="aes-256-gcm")
        custody.call("key.encrypt", key=name, input=b"x")
    lane.operations.clear()
    lane.held = True
    ends: list[Exception | None] = []
    drive(custody.keyring.close(), lambda _value, error: ends.append(error))
    assert [operation.code for operation in lane.operations] == [OpCode.ENCRYPT] * 4  # and v/k
    lane.held = False
    lane.release()
    assert ends == [None]
