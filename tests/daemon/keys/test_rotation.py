"""When a key is due (rotation.py), and which ones are (survey.py)."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.hierarchy.records import KEY_USAGE
from openk_daemon.keys.survey import Found, Place, Survey
from openk_daemon.refusal import Refusal
from openk_daemon.rotation import DAY, SAYS_VERSION, Due, Facts, Rule, fits, judge
from openk_daemon.store.memory import MemoryStore
from openk_hsm.inline import InlineLane
from openk_hsm.software import SoftwareBackend
from tests.support.custody import Custody, records, run
from tests.support.lanes import SteeredLane

AES = Facts("payments/card", "aes-256-gcm", "encrypt", 1_000 * DAY, 5)
CURVE = Facts("build/release-2", "p-256", "sign", 1_000 * DAY)

ALGORITHMS = st.sampled_from(["aes-256-gcm", "p-256", "hmac-sha-256"])
VAULTS = st.frozensets(st.sampled_from(["payments", "build"]), max_size=2)
KEYS = st.lists(st.sampled_from(["payments/card", "payments/*", "build/rel*", "build/other"]), max_size=2).map(tuple)
RULES = st.lists(
    st.builds(
        Rule,
        name=st.just(""),
        after=st.none() | st.integers(1, 3000 * DAY),
        uses=st.none() | st.integers(1, 1 << 32),
        rotates=st.booleans(),
        vaults=VAULTS,
        keys=KEYS,
        algorithms=st.frozensets(ALGORITHMS, max_size=2),
    ).filter(lambda rule: rule.after is not None or rule.uses is not None),
    max_size=5,
).map(lambda rules: [replace(rule, name=f"r{number}") for number, rule in enumerate(rules)])
FACTS = st.builds(
    Facts,
    name=st.sampled_from(["payments/card", "payments/x", "build/release-2", "mail/k"]),
    algorithm=ALGORITHMS,
    purpose=st.sampled_from(["encrypt", "sign", "mac"]),
    created=st.integers(0, 4000 * DAY),
    uses=st.none() | st.integers(0, 1 << 33),
    resident=st.booleans(),
)
MOMENTS = st.integers(0, 8000 * DAY)


@given(rules=RULES, key=FACTS, now=MOMENTS)
def test_the_order_of_rules_means_nothing(rules: list[Rule], key: Facts, now: int) -> None:
    assert len({judge(ordered, key, now) for ordered in permutations(rules)}) == 1


@given(rules=RULES, key=FACTS, now=MOMENTS, later=st.integers(0, 1000 * DAY), more=st.integers(0, 1 << 32))
def test_what_is_due_stays_due(rules: list[Rule], key: Facts, now: int, later: int, more: int) -> None:
    before = judge(rules, key, now)
    used = replace(key, uses=None if key.uses is None else key.uses + more)
    after = judge(rules, used, now + later)
    assert (before is None) == (after is None)
    assert before is None or after is None or after.now or not before.now


@given(rules=RULES, key=FACTS, now=MOMENTS, count=st.integers(0, 5))
def test_another_rule_only_brings_it_forward(rules: list[Rule], key: Facts, now: int, count: int) -> None:
    few, all_ = judge(rules[:count], key, now), judge(rules, key, now)
    if few is not None:
        assert all_ is not None
        assert all_.now or not few.now
        assert all_.acts or not (few.now and few.acts), "nor does one that tells hinder one that rotates"
        if not all_.now and few.at is not None:
            assert all_.at is not None
            assert all_.at <= few.at


@given(rules=RULES, key=FACTS, now=MOMENTS)
def test_a_fresh_version_is_never_due(rules: list[Rule], key: Facts, now: int) -> None:
    """Else one rotation would lead to the next, for ever."""
    due = judge(rules, Facts(key.name, key.algorithm, key.purpose, now, 0), now)
    assert due is None or not due.now


@given(rules=RULES, key=FACTS, now=MOMENTS, back=st.integers(1, 4000 * DAY))
def test_a_version_from_the_future_is_not_due_by_its_age(rules: list[Rule], key: Facts, now: int, back: int) -> None:
    """The clock was set back: keys that were made before that are due late, not over and over."""
    due = judge(rules, Facts(key.name, key.algorithm, key.purpose, now + back, None), now)
    assert due is None or not due.now


@given(rules=RULES, key=FACTS, now=MOMENTS)
def test_only_what_says_its_version_is_rotated_without_being_named(rules: list[Rule], key: Facts, now: int) -> None:
    due = judge(rules, key, now)
    if due is not None and due.acts:
        rule = next(rule for rule in rules if rule.name == due.rule)
        assert rule.rotates
        assert (key.algorithm in SAYS_VERSION and not key.resident) or key.algorithm in rule.algorithms


@pytest.mark.parametrize(
    ("rule", "key", "days", "expected"),
    [
        (Rule("r", after=90 * DAY), AES, 89, Due("r", 1_090 * DAY, now=False, acts=False)),
        (Rule("r", after=90 * DAY), AES, 90, Due("r", 1_090 * DAY, now=True, acts=False)),
        (Rule("r", after=90 * DAY, rotates=True), AES, 90, Due("r", 1_090 * DAY, now=True, acts=True)),
        (Rule("r", after=90 * DAY, rotates=True), CURVE, 90, Due("r", 1_090 * DAY, now=True, acts=False)),
        (Rule("r", after=90 * DAY, rotates=True, algorithms=frozenset({"p-256"})), CURVE, 90, Due("r", 1_090 * DAY, now=True, acts=True)),
        (Rule("r", after=90 * DAY, rotates=True), replace(AES, resident=True), 90, Due("r", 1_090 * DAY, now=True, acts=False)),
        (Rule("r", uses=6), AES, 3, Due("r", None, now=False, acts=False)),
        (Rule("r", uses=5), AES, 3, Due("r", 1_003 * DAY, now=True, acts=False)),
        (Rule("r", after=90 * DAY, uses=5), AES, 3, Due("r", 1_003 * DAY, now=True, acts=False)),
        (Rule("r", after=90 * DAY, uses=5), AES, 91, Due("r", 1_090 * DAY, now=True, acts=False)),
        (Rule("r", uses=5), CURVE, 3, Due("r", None, now=False, acts=False)),
        (Rule("r", after=DAY, vaults=frozenset({"build"})), AES, 9, None),
        (Rule("r", after=DAY, keys=("payments/card-*",)), AES, 9, None),
        (Rule("r", after=DAY, purposes=frozenset({"wrap"})), AES, 9, None),
    ],
)  # fmt: skip
def test_when_a_key_is_due(rule: Rule, key: Facts, days: int, expected: Due | None) -> None:
    assert judge([rule], key, (1_000 + days) * DAY) == expected


def test_a_rule_that_tells_in_time_and_one_that_rotates_then() -> None:
    rules = [Rule("soon", after=80 * DAY), Rule("now", after=90 * DAY, rotates=True)]
    told = [judge(rules, AES, (1_000 + days) * DAY) for days in (79, 80, 90)]
    assert [(due.rule, due.now, due.acts) for due in told if due] == [
        ("soon", False, False), ("soon", True, False), ("now", True, True),
    ]  # fmt: skip


def test_patterns() -> None:
    assert fits("v/card", "v/card")
    assert not fits("v/card", "v/card-2")
    assert fits("v/card*", "v/card-2")
    assert fits("v/*", "v/any/thing")
    assert not fits("v/*", "vv/x")


@given(rule=RULES.filter(bool).map(lambda rules: rules[0]), key=FACTS)
def test_a_vault_is_left_out_only_where_no_key_of_it_is_concerned(rule: Rule, key: Facts) -> None:
    if rule.concerns(key.name, key.algorithm, key.purpose):
        assert rule.reaches(key.name.partition("/")[0])


# --- the survey ---


def whole_walk(survey: Survey, most: int) -> tuple[list[Found], int]:
    """What a walk over all keys finds, and in how many steps."""
    found: list[Found] = []
    place: Place | None = Place()
    steps = 0
    while place is not None:
        leg = run(survey.walk(place, most))
        assert leg.looked <= most
        assert leg.trouble is None
        found += leg.found
        place, steps = leg.place, steps + 1
    return found, steps


@pytest.fixture
def furnished(custody: Custody) -> Custody:
    """Seven keys in two vaults, and an empty one; two days later one of them is rotated and another used."""
    custody.call("vault.create", vault="empty")
    for number in range(5):
        custody.call("key.create", key=f"payments/k{number}", algorithm="aes-256-gcm")
    custody.call("key.create", key="mail/dkim", algorithm="p-256")
    custody.call("key.create", key="mail/tag", algorithm="hmac-sha-256")
    custody.clock.pass_(2 * 86_400)
    custody.call("key.rotate", key="payments/k1")
    for _ in range(3):
        custody.call("key.encrypt", key="payments/k2", input=b"x")
    return custody


@pytest.mark.parametrize("most", [1, 2, 3, 1000])
def test_a_walk_finds_each_key_that_is_due_once(furnished: Custody, most: int) -> None:
    survey = furnished.keys.survey
    survey.rules = (Rule("old", after=DAY), Rule("much", uses=3, rotates=True))
    found, steps = whole_walk(survey, most)
    assert sorted((one.name, one.version, one.due.rule, one.due.acts) for one in found) == [
        ("mail/dkim", 1, "old", False),
        ("mail/tag", 1, "old", False),
        ("payments/k0", 1, "old", False),
        ("payments/k2", 1, "much", True),
        ("payments/k3", 1, "old", False),
        ("payments/k4", 1, "old", False),
    ]
    assert steps <= 12 / most + 2


def test_a_daemon_that_has_loaded_no_key_finds_the_same(furnished: Custody) -> None:
    run(furnished.keyring.close())  # counts are exact then
    rules = (Rule("old", after=DAY), Rule("much", uses=3, rotates=True))
    furnished.keys.survey.rules = rules
    later = furnished.again()
    later.clock.pass_(2 * 86_400)
    later.keys.survey.rules = rules
    expected, _ = whole_walk(furnished.keys.survey, 100)
    assert whole_walk(later.keys.survey, 100)[0] == expected
    assert {one.name for one in expected} == {f"payments/k{number}" for number in (0, 2, 3, 4)} | {"mail/dkim", "mail/tag"}
    assert all(later.keyring.loaded(one.name) is None for one in expected), "a look loads no key"


def test_a_crash_counts_a_block_too_many_and_never_too_few(furnished: Custody) -> None:
    later = furnished.again()
    later.keys.survey.rules = (Rule("much", uses=1024),)
    found, _ = whole_walk(later.keys.survey, 100)
    assert {one.name for one in found} >= {"payments/k2"}


def test_vaults_that_no_rule_reaches_are_not_opened() -> None:
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    custody = Custody(lane=lane)
    for vault in ("payments", "mail"):
        custody.call("vault.create", vault=vault)
        for number in range(20):
            custody.call("key.create", key=f"{vault}/k{number}", algorithm="hmac-sha-256")
    survey = custody.keys.survey
    survey.rules = (Rule("r", after=DAY, vaults=frozenset({"mail"})),)
    lane.operations.clear()
    lane.unloaded.clear()
    whole_walk(survey, 100)
    assert len(lane.operations) == 2 + 20, "the vaults' own records, and the keys of the one"
    assert len(lane.unloaded) == 3, "the keys of the vault are given back"


def test_vaults_count_too() -> None:
    """A thousand of them without a key that is concerned must not be one step."""
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    custody = Custody(lane=lane)
    for number in range(30):
        custody.call("vault.create", vault=f"v{number}")
    survey = custody.keys.survey
    survey.rules = (Rule("r", after=DAY, vaults=frozenset({"v7"})),)
    place: Place | None = Place()
    steps = 0
    while place is not None:
        lane.operations.clear()
        place, steps = run(survey.walk(place, 10)).place, steps + 1
        assert len(lane.operations) <= 10 + 1, "and the one where the step before stopped"
    assert steps == 4


def test_what_is_shown_of_a_key(furnished: Custody) -> None:
    assert "due" not in furnished.call("key.describe", key="payments/k0"), "no rule concerns it"
    furnished.keys.survey.rules = (Rule("much", uses=4, rotates=True), Rule("old", after=3 * DAY, vaults=frozenset({"mail"})))
    expected = {
        "payments/k2": {"at": None, "rule": "much", "action": "rotate"},
        "mail/tag": {"at": "2026-01-05T03:04:05.000Z", "rule": "old", "action": "tell"},
    }
    for name, due in expected.items():
        assert furnished.call("key.describe", key=name)["due"] == due
        vault = name.partition("/")[0]
        (listed,) = [key for key in furnished.call("key.list", vault=vault)["keys"] if key["key"] == name]
        assert listed["due"] == due
    furnished.call("key.encrypt", key="payments/k2", input=b"x")
    due = furnished.call("key.describe", key="payments/k2")["due"]
    assert due == {"at": "2026-01-04T03:04:05.000Z", "rule": "much", "action": "rotate"}, "now"
    assert furnished.call("key.rotate", key="payments/k2")["due"]["at"] is None, "of the new version"


def test_a_vault_that_cannot_be_read_is_left_out_and_told_of(furnished: Custody) -> None:
    survey = furnished.keys.survey
    survey.rules = (Rule("old", after=DAY), Rule("much", uses=3))
    assert isinstance(furnished.store, MemoryStore)
    later = furnished.again()
    later.clock.pass_(2 * 86_400)
    later.keys.survey.rules = survey.rules
    records(furnished.store, KEY_USAGE).clear()
    leg = run(later.keys.survey.walk(Place(), 1000))
    assert sorted(one.name for one in leg.found) == ["mail/dkim", "mail/tag"]
    assert leg.place is None
    assert isinstance(leg.trouble, Refusal)
    assert leg.trouble.code.name == "store.damaged"
