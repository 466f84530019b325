"""conf.d and the environment laid over the file; where each value came from; what a reload takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from openk.wire.methods import ALGORITHMS
from openk_daemon.config import Config, ConfigError, Hsm, Rate, Rotation, read
from openk_daemon.config_aging import _purposes, rotation_rules
from openk_daemon.config_sources import INCLUDED_MOST, VARIABLES, Gathered, lines_of
from openk_daemon.config_view import changes, effective, origin, take_live
from openk_daemon.keys.suites import SUITES
from openk_daemon.observe.log import Category, Level
from openk_daemon.rates import Rates
from openk_daemon.rotation import Rule
from openk_daemon.settings import Settings, levels_of, rules_of
from tests.support.logs import captured

HSM = '[hsm.main]\nsockets = ["/run/openk-hsm/main.sock"]\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "openkd.toml"
    path.write_text(HSM + "[limits]\nqueue = 10\nin_flight = 5\n", "utf-8")
    return path


def include(file: Path, name: str, text: str) -> Path:
    folder = file.with_name("conf.d")
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def mistakes(file: Path, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(file, environment)
    return list(caught.value.mistakes)


# --- what wins ---


def test_included_files_come_in_the_order_of_their_names_and_win_key_by_key(file: Path) -> None:
    second = include(file, "20-b.toml", "[limits]\nqueue = 30\n[log]\nlevel = 'error'\n")
    first = include(file, "10-a.toml", "[limits]\nqueue = 20\nnesting = 6\n")
    include(file, ".hidden.toml", "nonsense = 1\n")
    include(file, "notes.txt", "not read")
    found = read(file)
    limits = found.config.limits
    assert (limits.queue, limits.nesting, limits.in_flight) == (30, 6, 5)
    origins = {key: origin(key, found.origins) for key in ("limits.queue", "limits.nesting", "limits.in_flight")}
    assert origins == {
        "limits.queue": f"{second}:2", "limits.nesting": f"{first}:3", "limits.in_flight": f"{file}:5",
    }  # fmt: skip
    assert origin("limits.connections", found.origins) == "default"


def test_lists_are_replaced_and_hsms_added(file: Path) -> None:
    include(file, "1.toml", '[hsm.other]\nsockets = ["/run/o.sock"]\n[hsm.main]\nsockets = ["/run/n.sock"]\n')
    assert read(file).config.hsm == {
        "main": Hsm(sockets=(Path("/run/n.sock"),)), "other": Hsm(sockets=(Path("/run/o.sock"),)),
    }  # fmt: skip
    assert next(iter(read(file).config.hsm)) == "main", "home stays the first"


def test_variables_win_over_all(file: Path) -> None:
    include(file, "1.toml", "[log]\nlevel = 'error'\n")
    found = read(file, {"OPENKD_LOG_LEVEL": "debug", "OPENKD_STATE": "/srv/x", "HOME": "/root", "OPENK_SOCKET": "/y"})
    assert (found.config.log.level, found.config.state) == ("debug", Path("/srv/x"))
    assert found.origins["log.level"] == "environment OPENKD_LOG_LEVEL"


@pytest.mark.parametrize("name", VARIABLES)
def test_each_variable_sets_a_key_that_is_there(name: str) -> None:
    keys = {setting.key for setting in effective(Config())}
    assert ".".join(VARIABLES[name]) in keys


# --- mistakes, with their place ---


def test_mistakes_name_the_file_they_are_in(file: Path) -> None:
    first = include(file, "1.toml", "[limits]\nqueu = 1\n")
    second = include(file, "2.toml", "\n[limits]\nqueue = 0\n")
    assert mistakes(file) == [
        f"{second}:3: limits.queue: Expected `int` >= 1",
        f"{first}:2: limits.queu: is not a key of openkd: did you mean limits.queue?",
    ]


def test_mistakes_of_variables_name_the_variable(file: Path) -> None:
    assert mistakes(file, OPENKD_LOG_LEVEL="loud") == [
        "environment OPENKD_LOG_LEVEL: log.level: Invalid enum value 'loud'"
    ]
    assert mistakes(file, OPENKD_LOGLEVEL="info") == [
        "environment: OPENKD_LOGLEVEL: is not a variable of openkd: did you mean OPENKD_LOG_LEVEL?"
    ]
    (said,) = mistakes(file, OPENKD_XYZZY="red")
    assert "known are OPENKD_STATE" in said


def test_files_that_are_no_toml_are_all_told(file: Path) -> None:
    first, second = include(file, "1.toml", "[x"), include(file, "2.toml", "y")
    found = mistakes(file)
    assert [said.split(": not TOML")[0] for said in found] == [str(first), str(second)]


def test_a_table_where_a_value_was_and_the_other_way_round(file: Path) -> None:
    path = include(file, "1.toml", "limits = 3\n")
    assert mistakes(file) == [f"{path}:1: limits: must be a table: [limits]"]
    path.write_text("[state]\nx = 1\n", "utf-8")
    assert mistakes(file)[0].startswith(f"{path}:1: state: Expected a path in quotes")


def test_too_many_files(file: Path) -> None:
    for number in range(INCLUDED_MOST + 1):
        include(file, f"{number}.toml", "")
    assert f"{INCLUDED_MOST + 1} files are more than {INCLUDED_MOST}" in mistakes(file)[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[rate.x]\n", "6: rate.x: per_second is missing"),
        ("[rate.x]\nper_second = 0\n", "7: rate.x.per_second: Expected `float` >= 0.001"),
        ("[rate.X]\nper_second = 1\n", "6: rate.X: a limit's name is 1 to 32"),
        ("[rate]\nx = 1\n", "7: rate.x: must be a table: [rate.x]"),
        ("[rate.x]\nper_second = 1\nper = ['gid']\n", "8: rate.x.per: Invalid enum value 'gid'"),
        ("[rate.x]\nper_second = 1\nper_secnd = 1\n", "8: rate.x.per_secnd: is not a key of openkd: did you mean rate.x.per_second?"),
        ("[rate.x]\nper_second = 1\nusers = ['nobody-of-that-name']\n", "8: rate.x.users: no user 'nobody-of-that-name'"),
        ("[rate.x]\nper_second = 1\nmethods = ['key.sing']\n", "8: rate.x.methods: there is no method 'key.sing': did you mean key.sign?"),
        ("[rate.x]\nper_second = 1\nmethods = ['kee.*']\n", "8: rate.x.methods: there is no method 'kee.*': did you mean key.*?"),
        ("[rotation.x]\n", "6: rotation.x: after_days or after_uses is missing: no key would ever be due"),
        ("[rotation.X]\nafter_days = 1\n", "6: rotation.X: a rule's name is 1 to 32"),
        ("[rotation]\nx = 1\n", "7: rotation.x: must be a table: [rotation.x]"),
        ("[rotation.x]\nafter_days = 0\n", "7: rotation.x.after_days: Expected `float` >= 0.01"),
        ("[rotation.x]\nafter_dys = 1\n", "7: rotation.x.after_dys: is not a key of openkd: did you mean rotation.x.after_days?"),
        ("[rotation.x]\nafter_days = 1\naction = 'ask'\n", "8: rotation.x.action: Invalid enum value 'ask'"),
        ("[rotation.x]\nafter_days = 1\nalgorithms = ['p-265']\n", "8: rotation.x.algorithms: there is no algorithm 'p-265': did you mean p-256?"),
        ("[rotation.x]\nafter_days = 1\npurposes = ['signing']\n", "8: rotation.x.purposes: Invalid enum value 'signing'"),
        ("[rotation.x]\nafter_days = 1\nalgorithms = ['ed25519']\npurposes = ['agree']\n", "9: rotation.x.purposes: no key of the rule's algorithms is for agree"),
        ("[rotation.x]\nafter_days = 1\nkeys = ['card']\n", "8: rotation.x.keys: 'card' is no name of a key: write VAULT/NAME"),
        ("[rotation.x]\nafter_days = 1\nkeys = ['*/card']\n", "8: rotation.x.keys: '*/card' is no name of a key"),
        ("[rotation.x]\nafter_days = 1\nvaults = ['mail']\nkeys = ['payments/card*']\n", "9: rotation.x.keys: 'payments/card*' is in none of the rule's vaults"),
        ("[rotation.x]\nafter_uses = 5\nalgorithms = ['p-256']\n", "7: rotation.x.after_uses: only uses of aes-256-gcm keys are counted"),
        ("[rotation.x]\nafter_uses = 5\npurposes = ['sign']\n", "7: rotation.x.after_uses: only uses of aes-256-gcm keys are counted"),
        ("[rotation.x]\nafter_uses = 11\n[crypto]\ngcm_uses = 10\n", "7: rotation.x.after_uses: is more than crypto.gcm_uses (10)"),
        ("[rotation.x]\nafter_days = 1\naction = 'rotate'\nalgorithms = ['ed25519']\n[crypto]\nalgorithms = ['p-256']\n", "9: rotation.x.algorithms: crypto.algorithms allows no new ed25519 keys"),
        ("[rotation.x]\nafter_days = 1\naction = 'rotate'\nalgorithms = ['rsa-2048']\n[crypto]\nrsa_bits = 3072\n", "9: rotation.x.algorithms: crypto.rsa_bits allows no new rsa-2048 keys"),
        ("[rotation.x]\nafter_days = 1\naction = 'rotate'\n[crypto]\nalgorithms = ['p-256']\n", "8: rotation.x.action: crypto.algorithms allows no new keys"),
        ("[retention]\nsecret_versions = -1\n", "7: retention.secret_versions: Expected `int` >= 0"),
        ("[log.levels]\nhms = 'debug'\n", "7: log.levels.hms: is not a key of openkd: did you mean log.levels.hsm?"),
        ("[log.levels]\nhsm = 'loud'\n", "7: log.levels.hsm: Invalid enum value 'loud'"),
        ("[log]\nlevels = 'debug'\n", "7: log.levels: must be a table: [log.levels]"),
    ],
)  # fmt: skip
def test_mistakes_in_what_is_new(file: Path, text: str, expected: str) -> None:
    file.write_text(file.read_text("utf-8") + text, "utf-8")
    said = mistakes(file)
    assert said[0].startswith(f"{file}:{expected}"), said


names = st.sampled_from(["a", "b", "c"])
documents = st.recursive(
    st.integers(), lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=6
)  # fmt: skip


@given(st.lists(st.dictionaries(names, documents, max_size=3), max_size=4))
@example([{"c": 0}, {"c": {"c": {"a": 0}}}, {"c": {"c": {}}}])  # a table in the place of a value
def test_laying_documents_over_each_other(layers: list[dict[str, object]]) -> None:
    """Every value is the last one's that set it, and every value has the place of that one."""
    found = Gathered()
    for number, layer in enumerate(layers):
        found.add(layer, f"f{number}", {})

    def last(key: tuple[str, ...]) -> int:
        for number in reversed(range(len(layers))):
            value: object = layers[number]
            for part in key:
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None and not isinstance(value, dict):
                return number
        raise AssertionError(key)

    def walk(table: dict[str, object], at: tuple[str, ...]) -> None:
        for name, value in table.items():
            if isinstance(value, dict):
                walk(value, (*at, name))
            else:
                assert found.place((*at, name)) == f"f{last((*at, name))}"

    walk(found.values, ())


def test_lines_are_found_in_included_files_too() -> None:
    assert lines_of("[rate.x]\nper_second = 1\n") == {("rate", "x"): 1, ("rate", "x", "per_second"): 2}


# --- what is shown, what differs, what a reload takes ---


def test_every_key_is_shown_with_its_value(file: Path) -> None:
    shown = {setting.key: setting for setting in effective(read(file).config)}
    assert shown["limits.queue"].value == 10
    assert shown["hsm.main.sockets"].value == ["/run/openk-hsm/main.sock"]
    assert shown["metrics.socket"].value is None
    assert shown["log.levels.hsm"].live
    assert not shown["limits.queue"].live


def test_what_differs(file: Path) -> None:
    before = read(file).config
    include(file, "1.toml", "[rate.x]\nper_second = 2\n[limits]\nqueue = 11\n")
    after = read(file).config
    found = {change.key: change for change in changes(before, after)}
    assert found.keys() >= {"rate.x.per_second", "rate.x.per", "limits.queue"}
    assert (found["limits.queue"].running, found["limits.queue"].fresh, found["limits.queue"].live) == (10, 11, False)
    assert (found["rate.x.per_second"].running, found["rate.x.per_second"].live) == (None, True)
    taken = take_live(before, after)
    assert taken == replace(before, rate=after.rate)
    assert [change.key for change in changes(taken, after)] == ["limits.queue"]
    assert changes(after, after) == []


def test_a_reload_takes_all_or_nothing(file: Path) -> None:
    applied: list[Config] = []
    with captured() as logged:
        settings = Settings(read(file), logged.log, Rates())
        settings.start()
        settings.on_apply(applied.append)
        extra = include(file, "1.toml", "[rate.x]\nper_second = 2\n[log.levels]\nhsm = 'debug'\n[limits]\nqueue = 11\n")
        assert "log.levels.hsm" in [change.key for change in settings.reload()]
        assert settings.rates.rules == tuple(rules_of({"x": Rate(per_second=2.0)}))
        assert logged.log.levels[Category.HSM] is Level.DEBUG
        assert logged.log.levels[Category.AUDIT] is Level.INFO
        assert logged.one("config.waits")["key"] == "limits.queue"
        assert applied == [read(file).config] or applied[-1].limits.queue == 10
        extra.write_text("[rate.x]\nper_second = 0\n[log.levels]\nhsm = 'error'\n", "utf-8")
        with pytest.raises(ConfigError):
            settings.reload()
        assert logged.one("config.kept", level="error")["text"] == f"{extra}:2: rate.x.per_second: Expected `float` >= 0.001"
        assert logged.log.levels[Category.HSM] is Level.DEBUG
        assert len(applied) == 2


def test_rates_become_rules() -> None:
    (rule,) = rules_of({"x": Rate(per_second=2.5, methods=("key.*",), vaults=("v",))})
    assert (rule.name, rule.per_second, rule.burst, rule.per) == ("x", 2.5, 2, ("uid",))
    assert "key.sign" in rule.methods
    assert "secret.get" not in rule.methods


def test_rotation_tables_become_rules() -> None:
    table = Rotation(after_days=0.5, after_uses=7, action="rotate", vaults=("v",), keys=("v/k*",), algorithms=("p-256",))
    assert rotation_rules({"x": table, "y": Rotation(after_days=1.0)}) == (
        Rule("x", 43_200_000, 7, True, frozenset({"v"}), ("v/k*",), frozenset({"p-256"})),
        Rule("y", 86_400_000),
    )


def test_the_configuration_knows_what_each_algorithm_is_for() -> None:
    assert {name: _purposes(name) for name in ALGORITHMS} == {
        algorithm.value: tuple(purpose.value for purpose in suite.purposes) for algorithm, suite in SUITES.items()
    }


def test_each_category_has_a_level() -> None:
    levels = levels_of(Config())
    assert levels == dict.fromkeys(Category, Level.INFO)
