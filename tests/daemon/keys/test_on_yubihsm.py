"""Vaults and keys on an emulated YubiHSM: what lives on the device is made under a journal, and nothing stays behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from openk_daemon.hierarchy.envelope import AES_256_CCM, HEADER
from openk_daemon.hierarchy.records import INTENT, KEY_VERSION, SECRET_VERSION, VAULT
from openk_daemon.keys.suites import SUITES
from openk_daemon.refusal import Refusal
from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Record, Unit, Write
from openk_hsm.inline import InlineLane
from openk_hsm.seam import Algorithm, KeySpec
from tests.support.custody import Custody, records, run
from tests.support.softhsm_walk import USES
from tests.support.yubihsm_inline import InlineDevice

SLOW = {Algorithm.RSA_3072, Algorithm.RSA_4096}
ROOTS = 5
"""Objects of a device that serves openk and has no vault: root keys, and the authentication key."""


class Stand:
    """A device, a store, and a daemon's custody over them, which may be started again."""

    def __init__(self) -> None:
        self.device = InlineDevice()
        self.store = MemoryStore()
        self.lane: InlineLane | None = None
        self.custody = self.start()

    def start(self) -> Custody:
        if self.lane is not None:
            self.custody.keyring.openings.clear()
            self.lane.close()
        self.lane = self.device.lane()
        self.custody = Custody(lane=self.lane, store=self.store)
        return self.custody

    def objects(self) -> list[str]:
        assert self.lane is not None
        return sorted(found.label for found in self.lane.objects().result())


@pytest.fixture
def stand(leases: None) -> Iterator[Stand]:
    made = Stand()
    made.custody.call("vault.create", vault="v")
    yield made
    made.custody.keyring.openings.clear()


def refusal(stand: Stand, method: str, **given: str) -> Refusal:
    with pytest.raises(Refusal) as refused:
        stand.custody.call(method, **given)
    return refused.value


def test_every_key_that_is_possible_does_its_work_and_outlives_a_restart(stand: Stand) -> None:
    info = stand.custody.hierarchy.hsms.default.info().result()
    done: list[str] = []
    for algorithm, suite in SUITES.items():
        for purpose in suite.purposes:
            for protection in ("resident", "cached"):
                if algorithm in SLOW:
                    continue
                key = f"v/{algorithm.value}-{purpose.value}-{protection}"
                possible = (
                    KeySpec(algorithm, purpose) in info.resident if protection == "resident" else bool(suite.material)
                )
                given = {"key": key, "algorithm": algorithm.value, "purpose": purpose.value, "protection": protection}
                if not possible:
                    assert refusal(stand, "key.create", **given).code.name == "key.unsupported"
                    continue
                stand.custody.call("key.create", **given)
                if purpose.value != "decrypt":
                    USES[purpose.value](stand.custody, key)
                else:
                    sealed = stand.custody.call("key.encrypt", key=key, input=b"x", hash="sha-256")["ciphertext"]
                    assert stand.custody.call("key.decrypt", key=key, ciphertext=sealed, hash="sha-256")
                done.append(key)
    assert len(done) > 25
    mac = stand.custody.call("key.mac", key="v/hmac-sha-256-mac-resident", input=b"x")["mac"]
    stand.custody.call("secret.put", secret="v/password", value=b"hunter2")
    again = stand.start()
    assert again.call("key.mac", key="v/hmac-sha-256-mac-resident", input=b"x")["mac"] == mac
    assert again.call("secret.get", secret="v/password")["value"] == b"hunter2"
    for key in done:
        assert again.call("key.describe", key=key)["protection"] == key.rpartition("-")[2]


def test_wrapped_keys_are_refused_with_the_reason(stand: Stand) -> None:
    refused = refusal(stand, "key.create", key="v/k", algorithm="p-256", protection="wrapped")
    assert refused.code.name == "key.unsupported"
    assert "keeps no wrapped keys" in refused.message
    assert refused.details["possible"] == ["resident", "cached"]


def test_what_is_stored_is_sealed_by_the_device(stand: Stand) -> None:
    stand.custody.call("secret.put", secret="v/password", value=b"hunter2")
    (vault,) = records(stand.store, VAULT).values()
    assert vault.body[2] == AES_256_CCM
    (secret,) = records(stand.store, SECRET_VERSION).values()
    envelope = secret.body[5 : 5 + int.from_bytes(secret.body[3:5], "big")]
    assert len(envelope) == HEADER + 62 + 32
    assert envelope[2] == AES_256_CCM


def test_a_vault_takes_two_objects_and_no_intent_stays(stand: Stand) -> None:
    assert len(stand.objects()) == ROOTS + 2
    assert not records(stand.store, INTENT)
    stand.custody.call("key.create", key="v/k", algorithm="p-256")
    assert len(stand.objects()) == ROOTS + 3
    stand.custody.call("key.rotate", key="v/k")
    assert len(stand.objects()) == ROOTS + 4


def test_a_vault_that_did_not_become_durable_leaves_nothing_on_the_device(stand: Stand) -> None:
    before = stand.objects()
    outcome = stand.custody.outcome("vault.create", vault="second")
    assert len(stand.objects()) == len(before) + 2
    for step in outcome.after:
        if step.forget is not None:
            step.forget()
    assert stand.objects() == before
    assert not records(stand.store, INTENT)
    stand.custody.call("vault.create", vault="second")


def test_a_vault_cut_short_by_a_crash_leaves_nothing_on_the_device(stand: Stand) -> None:
    before = stand.objects()
    stand.custody.outcome("vault.create", vault="second")  # made, never committed, never undone
    stand.custody.outcome("key.create", key="v/k", algorithm="p-256")
    assert len(stand.objects()) == len(before) + 3
    again = stand.start()
    assert run(again.keys.recover()) == 3
    assert stand.objects() == before
    assert not records(stand.store, INTENT)
    again.call("vault.create", vault="second")


def test_an_intent_that_somebody_put_back_costs_a_vault_nothing(stand: Stand) -> None:
    outcome = stand.custody.outcome("vault.create", vault="second")
    kept = list(records(stand.store, INTENT).values())
    stand.custody.commit(outcome)
    run(_put_back(stand.store, kept))
    before = stand.objects()
    assert run(stand.custody.keys.recover()) == 2
    assert stand.objects() == before


async def _put_back(store: MemoryStore, intents: Sequence[Record]) -> None:
    await store.commit(Unit(tuple(Write(INTENT, intent.id, 0, intent.body) for intent in intents)))


def test_the_second_key_failing_takes_the_first_with_it(stand: Stand) -> None:
    before = stand.objects()
    stand.device.fault('{"faults": [{"do": "storage-full", "commands": ["GENERATE_HMAC_KEY"], "times": 1}]}')
    assert refusal(stand, "vault.create", vault="second").code.name == "hsm.full"
    assert stand.objects() == before
    assert not records(stand.store, INTENT)


def test_a_vaults_object_that_is_gone_is_noticed(stand: Stand) -> None:
    stand.custody.call("key.create", key="v/k", algorithm="p-256")
    (label,) = [name for name in stand.objects() if name.startswith("openk-mac-")]
    assert stand.lane is not None
    assert stand.lane.destroy_resident(label, bytes.fromhex(label.removeprefix("openk-mac-"))).result()
    with pytest.raises(Refusal) as refused:
        stand.start().call("key.describe", key="v/k")
    assert refused.value.code.name == "hsm.refused"


def test_a_changed_record_is_damage(stand: Stand) -> None:
    stand.custody.call("key.create", key="v/k", algorithm="p-256")
    version = next(iter(records(stand.store, KEY_VERSION)))
    found = records(stand.store, KEY_VERSION)[version]
    records(stand.store, KEY_VERSION)[version] = type(found)(
        found.kind, found.id, found.version, found.body[:-1] + bytes([found.body[-1] ^ 1])
    )
    again = stand.start()
    with pytest.raises(Refusal) as refused:
        again.call("key.describe", key="v/k")
    assert refused.value.code.name == "store.damaged"
