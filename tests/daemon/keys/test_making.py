"""vault.*, key.create, list, describe, rotate; what is possible where; resident keys and their journal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openk_daemon.call import Outcome
from openk_daemon.hierarchy.records import INTENT, KEY, KEY_VERSION, VAULT
from openk_daemon.keys.making import choose
from openk_daemon.keys.suites import SUITES, Protection
from openk_daemon.refusal import Refusal
from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Full, Unit, Write
from openk_hsm.errors import Interrupted
from openk_hsm.inline import InlineLane
from openk_hsm.pending import Pending, drive
from openk_hsm.seam import Algorithm, Generated, KeySpec, ObjectInfo, Purpose, TokenInfo
from openk_hsm.software import SoftwareBackend
from tests.support.custody import Custody, Given, make_call, records, run
from tests.support.lanes import SteeredLane


def code(error: pytest.ExceptionInfo[Refusal]) -> str:
    return error.value.code.name


def resident_objects(custody: Custody) -> list[str]:
    return [found.label for found in run(_objects(custody)) if found.label.startswith("openk-key-")]


async def _objects(custody: Custody) -> list[ObjectInfo]:
    return list(await custody.lane.objects())


def test_vaults(custody: Custody) -> None:
    assert custody.call("vault.describe", vault="payments") == {
        "vault": "payments",
        "created": "2026-01-02T03:04:05.000Z",
        "hsm": "test",
    }
    with pytest.raises(Refusal) as refusal:
        custody.call("vault.create", vault="payments")
    assert code(refusal) == "vault.exists"
    for method, given in (
        ("vault.describe", {"vault": "nowhere"}),
        ("key.create", {"key": "nowhere/k", "algorithm": "ed25519"}),
        ("key.list", {"vault": "nowhere"}),
        ("secret.put", {"secret": "nowhere/s", "value": b"x"}),
        ("secret.get", {"secret": "nowhere/s"}),
        ("secret.list", {"vault": "nowhere"}),
    ):
        with pytest.raises(Refusal) as refusal:
            custody.call(method, **given)
        assert code(refusal) == "vault.unknown", method
    with pytest.raises(Refusal) as refusal:
        custody.call("vault.create", vault="a/b")
    assert code(refusal) == "request.invalid"


def test_lists_come_in_pages_that_miss_nothing(custody: Custody) -> None:
    for i in range(7):
        custody.call("key.create", key=f"payments/k{i}", algorithm="ed25519")
        custody.call("secret.put", secret=f"payments/s{i}", value=b"x")
        custody.call("vault.create", vault=f"v{i}")
    for method, field, given in (
        ("key.list", "key", {"vault": "payments"}),
        ("secret.list", "secret", {"vault": "payments"}),
        ("vault.list", "vault", {}),
    ):
        every = custody.call(method, **given)[f"{field}s"]
        assert isinstance(every, list)
        found: list[dict[str, str]] = []
        while page := custody.call(method, limit=3, **given, **({"after": found[-1][field]} if found else {}))[
            f"{field}s"
        ]:
            assert isinstance(page, list)
            found += page
        assert found == every
        assert len({entry[field] for entry in found}) == len(found) == (9 if field == "vault" else 7)
    assert custody.call("key.list", vault="mail") == {"keys": []}
    entry = {"key": "payments/k0", "algorithm": "ed25519", "purpose": "sign", "protection": "wrapped", "version": 1}
    assert entry in custody.call("key.list", vault="payments")["keys"]


def test_descriptions(custody: Custody) -> None:
    made = custody.call("key.create", key="payments/k", algorithm="aes-256-gcm")
    assert made == custody.call("key.describe", key="payments/k")
    custody.clock.pass_(86400)
    rotated = custody.call("key.rotate", key="payments/k")
    for _ in range(5):
        custody.call("key.encrypt", key="payments/k", input=b"x", version=1)
    assert rotated["versions"] == [
        {"version": 1, "created": "2026-01-02T03:04:05.000Z", "uses": 0},
        {"version": 2, "created": "2026-01-03T03:04:05.000Z", "uses": 0},
    ]
    described = custody.call("key.describe", key="payments/k")
    assert described["versions"] == [{**rotated["versions"][0], "uses": 5}, rotated["versions"][1]]
    custody.call("key.create", key="payments/s", algorithm="ed25519")
    assert custody.call("key.describe", key="payments/s")["versions"][0]["uses"] is None


def test_names_are_taken_once(custody: Custody) -> None:
    custody.call("key.create", key="payments/k", algorithm="ed25519")
    for other in (custody, custody.again()):
        with pytest.raises(Refusal) as refusal:
            other.call("key.create", key="payments/k", algorithm="p-256")
        assert code(refusal) == "key.exists"
    custody.call("key.create", key="mail/k", algorithm="ed25519")
    custody.call("secret.put", secret="payments/k", value=b"secrets and keys do not share names")


def test_keys_that_are_not_there(custody: Custody) -> None:
    for method, given in (("key.describe", {}), ("key.rotate", {}), ("key.sign", {"input": b"x"}), ("key.public", {})):
        with pytest.raises(Refusal) as refusal:
            custody.call(method, key="payments/none", **given)
        assert code(refusal) == "key.unknown"


@pytest.mark.parametrize(
    ("algorithm", "purpose"),
    [
        ("aes-256-gcm", "sign"),
        ("ed25519", "encrypt"),
        ("x25519", "sign"),
        ("ml-kem-768", "agree"),
        ("rsa-2048", "encrypt"),
    ],
)
def test_purposes_that_do_not_fit(custody: Custody, algorithm: str, purpose: str) -> None:
    with pytest.raises(Refusal) as refusal:
        custody.call("key.create", key="payments/k", algorithm=algorithm, purpose=purpose)
    assert code(refusal) == "key.unsuitable"


def test_what_is_not_possible_is_refused_with_what_is() -> None:
    lane = InlineLane(SoftwareBackend(allow=True))
    spec = KeySpec(Algorithm.P256, Purpose.SIGN)
    full = run(_info(lane))
    bare = replace(full, wrapped=frozenset(), resident=frozenset())
    assert choose(full, spec, None) is Protection.WRAPPED
    assert choose(replace(bare, resident=frozenset({spec})), spec, "resident") is Protection.RESIDENT
    with pytest.raises(Refusal) as refusal:
        choose(replace(bare, resident=frozenset({spec})), spec, None)  # never cached without being asked
    assert code(refusal) == "key.unsupported"
    assert refusal.value.details == {"possible": ["resident", "cached"]}
    for algorithm in (Algorithm.X25519, Algorithm.ML_DSA_65, Algorithm.ML_KEM_768):
        spec = KeySpec(algorithm, SUITES[algorithm].purposes[0])
        assert choose(bare, spec, None) is Protection.CACHED
        for asked in ("wrapped", "resident"):
            with pytest.raises(Refusal):
                choose(bare, spec, asked)
    for algorithm in (Algorithm.RSA_2048, Algorithm.ML_KEM_512):
        with pytest.raises(Refusal) as refusal:
            choose(bare, KeySpec(algorithm, SUITES[algorithm].purposes[0]), "cached")
        assert refusal.value.details == {"possible": []}


async def _info(lane: InlineLane) -> TokenInfo:
    return await lane.info()


def test_the_store_sees_no_names(custody: Custody) -> None:
    custody.call("key.create", key="payments/topsecretname", algorithm="ed25519")
    custody.call("secret.put", secret="payments/topsecretname", fields={"topsecretname": b"topsecretname"})
    custody.call("vault.create", vault="topsecretname")
    store = custody.store
    assert isinstance(store, MemoryStore)
    for kind in run(_kinds(store)):
        for id_, record in records(store, kind).items():
            for name in (b"topsecretname", b"payments", b"ed25519"):
                assert name not in id_ + record.body


async def _kinds(store: MemoryStore) -> list[str]:
    return list(await store.kinds())


def test_a_change_that_is_not_durable_did_not_happen(custody: Custody) -> None:
    store = custody.store
    assert isinstance(store, MemoryStore)
    custody.call("key.create", key="payments/k", algorithm="aes-256-gcm")
    store.fail_with(Full("no space"))
    for method, given in (
        ("vault.create", {"vault": "v"}),
        ("key.create", {"key": "payments/new", "algorithm": "ed25519"}),
        ("key.rotate", {"key": "payments/k"}),
        ("secret.put", {"secret": "payments/s", "value": b"x"}),
    ):
        with pytest.raises(Refusal) as refusal:
            custody.call(method, **given)
        assert code(refusal) == "store.full"
    store.fail_with(None)
    for other in (custody, custody.again()):
        assert other.call("key.describe", key="payments/k")["version"] == 1
        for method, given in (
            ("vault.describe", {"vault": "v"}),
            ("key.describe", {"key": "payments/new"}),
            ("secret.get", {"secret": "payments/s"}),
        ):
            with pytest.raises(Refusal) as refusal:
                other.call(method, **given)
            assert code(refusal).endswith(".unknown")
    custody.call("key.rotate", key="payments/k")
    custody.call("secret.put", secret="payments/s", value=b"x")


def test_resident_keys_leave_no_intent(custody: Custody) -> None:
    custody.call("key.create", key="payments/k", algorithm="p-256", protection="resident")
    assert len(resident_objects(custody)) == 1
    custody.call("key.rotate", key="payments/k")
    assert len(resident_objects(custody)) == 2
    assert isinstance(custody.store, MemoryStore)
    assert records(custody.store, INTENT) == {}
    assert run(custody.keys.recover()) == 0
    assert len(resident_objects(custody)) == 2


def test_resident_key_whose_answer_was_lost_is_destroyed() -> None:
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    custody = Custody(lane=lane)
    custody.call("vault.create", vault="v")
    lane.fail_resident = Interrupted("the worker died")
    with pytest.raises(Refusal) as refusal:
        custody.call("key.create", key="v/k", algorithm="p-256", protection="resident")
    assert code(refusal) == "hsm.interrupted"
    assert resident_objects(custody) == []
    assert isinstance(custody.store, MemoryStore)
    assert records(custody.store, INTENT) == {}
    lane.fail_resident = None
    custody.call("key.create", key="v/k", algorithm="p-256", protection="resident")


class Twice(SteeredLane):
    """The first two answers are lost."""

    made = 0

    def generate_resident(self, spec: KeySpec, label: str, id_: bytes) -> Pending[Generated]:
        self.made += 1
        self.fail_resident = Interrupted("the worker died") if self.made < 3 else None
        return super().generate_resident(spec, label, id_)


def test_a_worker_that_dies_while_it_makes_a_token_object_costs_no_error() -> None:
    lane = Twice(InlineLane(SoftwareBackend(allow=True)))
    custody = Custody(lane=lane)
    custody.call("vault.create", vault="v")
    custody.call("key.create", key="v/k", algorithm="p-256", protection="resident")
    assert lane.made == 3
    assert len(resident_objects(custody)) == 1
    assert isinstance(custody.store, MemoryStore)
    assert records(custody.store, INTENT) == {}
    assert custody.call("key.sign", key="v/k", input=b"x")["signature"]


def test_a_next_version_is_not_tried_again_under_its_only_name() -> None:
    lane = Twice(InlineLane(SoftwareBackend(allow=True)))
    custody = Custody(lane=lane)
    custody.call("vault.create", vault="v")
    custody.call("key.create", key="v/k", algorithm="p-256", protection="resident")
    lane.made = 0
    with pytest.raises(Refusal) as refusal:
        custody.call("key.rotate", key="v/k")
    assert (lane.made, code(refusal)) == (1, "hsm.interrupted")
    assert len(resident_objects(custody)) == 1


def test_resident_key_that_could_not_be_committed_is_destroyed(custody: Custody) -> None:
    call = make_call("key.create", None, {"key": "payments/k", "algorithm": "p-256", "protection": "resident"})
    outcome = run(custody.handlers["key.create"](call))
    assert len(resident_objects(custody)) == 1
    for step in outcome.after:
        if step.forget is not None:
            step.forget()
    assert resident_objects(custody) == []
    custody.call("key.create", key="payments/k", algorithm="p-256", protection="resident")


def test_a_crash_before_the_commit_leaves_an_intent_that_recovery_undoes(custody: Custody) -> None:
    custody.outcome(
        "key.create", None, key="payments/k", algorithm="p-256", protection="resident"
    )  # and never committed
    assert isinstance(custody.store, MemoryStore)
    assert len(records(custody.store, INTENT)) == len(resident_objects(custody)) == 1
    later = custody.again()
    assert run(later.keys.recover()) == 1
    assert records(custody.store, INTENT) == {}
    assert resident_objects(later) == []
    later.call("key.create", key="payments/k", algorithm="p-256", protection="resident")


def test_an_intent_put_back_does_not_cost_the_key_its_object(custody: Custody) -> None:
    outcome = custody.outcome("key.create", None, key="payments/k", algorithm="p-256", protection="resident")
    assert isinstance(custody.store, MemoryStore)
    intents = dict(records(custody.store, INTENT))
    custody.commit(outcome)
    for id_, record in intents.items():
        run(_commit_intent(custody, Write(INTENT, id_, 0, record.body)))
    later = custody.again()
    assert run(later.keys.recover()) == 1
    later.call("key.sign", key="payments/k", input=b"x")


async def _commit_intent(custody: Custody, write: Write) -> None:
    await custody.store.commit(Unit((write,)))


def test_policies_may_read_a_keys_facts(custody: Custody) -> None:
    custody.call("key.create", key="payments/k", algorithm="p-256", purpose="agree")
    facts = (("algorithm", "p-256"), ("purpose", "agree"), ("protection", "wrapped"))
    assert custody.keys.loaded_resource("payments/k") == facts
    later = custody.again()
    assert later.keys.loaded_resource("payments/k") is None
    assert run(later.keys.describe_resource("payments/k")) == facts
    for name in ("payments/none", "nowhere/k", "not a name"):
        assert run(later.keys.describe_resource(name)) == ()


def test_pipelined_changes_of_one_thing_take_turns(custody: Custody) -> None:
    """Both begin before the first is durable; the second starts from what the first left."""
    custody.call("key.create", key="payments/k", algorithm="ed25519")
    changes: tuple[tuple[str, dict[str, Given], str], ...] = (
        ("key.rotate", {"key": "payments/k"}, "version"),
        ("secret.put", {"secret": "payments/s", "value": b"x"}, "version"),
    )
    for method, given, field in changes:
        ends: list[Outcome | Exception | None] = []
        for _ in range(3):
            start(custody, method, given, ends)
        seen = []
        while ends:
            (outcome,) = ends
            ends.clear()
            assert isinstance(outcome, Outcome)
            (result,) = custody.commit(outcome)
            assert not isinstance(result, Refusal)
            seen.append(result[field])
        assert seen in ([2, 3, 4], [1, 2, 3])


def start(custody: Custody, method: str, given: dict[str, Given], ends: list[Outcome | Exception | None]) -> None:
    """Begin a request; its end goes to `ends`."""
    flow = custody.handlers[method](make_call(method, None, given))
    drive(flow, lambda value, error: ends.append(error or value))


def test_two_who_want_one_name(custody: Custody) -> None:
    ends: list[Outcome | Exception | None] = []
    for _ in range(2):
        call = make_call("key.create", None, {"key": "payments/k", "algorithm": "ed25519"})
        drive(custody.handlers["key.create"](call), lambda value, error: ends.append(error or value))
    (outcome,) = ends
    assert isinstance(outcome, Outcome)
    custody.commit(outcome)
    refusal = ends[1]
    assert isinstance(refusal, Refusal)
    assert refusal.code.name == "key.exists"


@pytest.mark.parametrize("kind", [VAULT, KEY, KEY_VERSION])
def test_records_are_bound_to_their_place(custody: Custody, kind: str) -> None:
    """Two records of a kind, swapped: each was written by openk, neither is where it belongs."""
    for name in ("a", "b"):
        custody.call("key.create", key=f"payments/{name}", algorithm="ed25519")
    store = custody.store
    assert isinstance(store, MemoryStore)
    table = records(store, kind)
    left, right = list(table)[:2]
    table[left], table[right] = (
        replace(table[left], body=table[right].body),
        replace(table[right], body=table[left].body),
    )
    later = custody.again()
    for name in ("a", "b"):
        with pytest.raises(Refusal) as refusal:
            later.call("key.sign", key=f"payments/{name}", input=b"x")
        assert code(refusal) == "store.damaged"
        assert refusal.value.details == {"record": kind}
