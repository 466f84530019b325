"""Whatever was made, rotated, destroyed or added behind openk's back: each object and each key is told for what it is."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from openk_daemon.keys.census import Census, Report, Role, State
from openk_hsm.inline import InlineLane
from openk_hsm.seam import Algorithm, KeySpec, Purpose
from openk_hsm.software import SoftwareBackend
from tests.support.custody import POOL, Custody, run

ROOTS = {"openk-root-kw", "openk-root-data", "openk-root-mac", "openk-audit"}


class Token(RuleBasedStateMachine):
    keys: Bundle[str] = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.lane = InlineLane(SoftwareBackend(allow=True), "main")
        self.custody = Custody(lane=self.lane)
        self.vaults = 0
        self.count = 0
        self.versions: dict[str, int] = {}
        """Resident keys with their newest version."""
        self.others = 0
        """Keys that are no objects."""
        self.gone: set[tuple[str, int]] = set()
        self.foreign: set[str] = set()
        self.create_vault()

    @rule()
    def create_vault(self) -> None:
        self.custody.call("vault.create", vault=f"vault-{self.vaults}")
        self.vaults += 1

    @rule(target=keys, vault=st.integers(0, 9))
    def create_resident(self, vault: int) -> str:
        name = f"vault-{vault % self.vaults}/key-{self.count}"
        self.count += 1
        self.custody.call("key.create", key=name, algorithm="hmac-sha-256", protection="resident")
        self.versions[name] = 1
        return name

    @rule(vault=st.integers(0, 9), protection=st.sampled_from(["wrapped", "cached"]))
    def create_other(self, vault: int, protection: str) -> None:
        name = f"vault-{vault % self.vaults}/key-{self.count}"
        self.count += 1
        self.custody.call("key.create", key=name, algorithm="hmac-sha-256", protection=protection)
        self.others += 1

    @rule(name=keys)
    def rotate(self, name: str) -> None:
        self.versions[name] = self.custody.call("key.rotate", key=name)["version"]

    @rule(name=keys, version=st.integers(0, 9))
    def destroy_behind_our_back(self, name: str, version: int) -> None:
        number = 1 + version % self.versions[name]
        for row in self.report().rows:
            if (row.owner.name, row.owner.version, row.state) == (name, number, State.OK):
                self.lane.destroy_resident(row.object.label, row.object.id)
        self.gone.add((name, number))

    @rule(label=st.one_of(st.text(max_size=20), st.sampled_from(["openk-key-", "openk-key-00", "openk-data-00"])))
    def add_behind_our_back(self, label: str) -> None:
        self.lane.generate_resident(KeySpec(Algorithm.P256, Purpose.SIGN), label, b"somebody's")
        self.foreign.add(label)

    def report(self) -> Report:
        return run(Census(self.custody.hierarchy).take("", self.lane))

    @invariant()
    def everything_is_told_for_what_it_is(self) -> None:
        report = self.report()
        told = Counter((row.state, row.owner.role, row.owner.name, row.owner.version) for row in report.rows)
        expected: Counter[tuple[State, Role, str | None, int | None]] = Counter()
        expected[State.OK, Role.ROOT, None, None] = 3
        expected[State.OK, Role.AUDIT, None, None] = 1
        for name, newest in self.versions.items():
            for number in range(1, newest + 1):
                state = State.MISSING if (name, number) in self.gone else State.OK
                expected[state, Role.KEY, name, number] = 1
        if self.foreign:
            expected[State.UNKNOWN, Role.NONE, None, None] = len(self.foreign)
        assert told == expected
        assert (report.keys, report.complete) == (len(self.versions) + self.others, True)
        assert {row.object.label for row in report.rows if row.owner.role in {Role.ROOT, Role.AUDIT}} == ROOTS

    def teardown(self) -> None:
        self.custody.keyring.openings.clear()
        assert POOL.in_use == 0


TestToken = Token.TestCase
TestToken.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
