"""The configuration file: what is right is read, what is wrong is named with its place and its remedy."""

from __future__ import annotations

import os
import re
import stat
import tempfile
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk_daemon.config import Config, ConfigError, Hsm, Limits, development, load
from openk_daemon.config_reference import reference
from openk_daemon.config_sources import lines_of
from openk_daemon.policy.engine import Engine
from openk_daemon.policy.shipped import shipped_policies

HSM = '[hsm.main]\nsockets = ["/run/openk-hsm/main.sock"]\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "openkd.toml"
    path.write_text(text, "utf-8")
    return path


def mistakes(folder: Path, text: str) -> list[str]:
    path = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.exit == 78
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    assert all(mistake.startswith(str(path)) for mistake in caught.value.mistakes)
    return [mistake.removeprefix(str(path)).removeprefix(":").lstrip() for mistake in caught.value.mistakes]


def test_the_smallest_file_has_every_default(tmp_path: Path) -> None:
    found = load(written(tmp_path, HSM))
    assert found == Config(hsm={"main": Hsm(sockets=(Path("/run/openk-hsm/main.sock"),))})
    assert (found.limits.message_bytes, found.limits.in_flight, found.limits.connections) == (1 << 20, 64, 10_000)
    assert found.administrators == (0,)
    assert not found.development


def test_a_whole_file(tmp_path: Path) -> None:
    text = """
        state = "/srv/openk"
        policies = "/srv/policies"
        administrators = ["root", 1000]
        [socket]
        path = "/run/x.sock"
        mode = 0o666
        group = "openk"
        [hsm.a]
        uri = "pkcs11:token=a"
        sockets = ["/run/a-0.sock", "/run/a-1.sock"]
        handoff_bytes = 65536
        deadline_seconds = 5
        [hsm.b]
        sockets = ["/run/b.sock"]
        [limits]
        message_bytes = 65536
        message_seconds = 2.5
        [cache]
        key_seconds = 60
        [audit]
        origin = "example.com/log"
        [log]
        level = "debug"
        [metrics]
        socket = "/run/m.sock"
    """
    found = load(written(tmp_path, text))
    assert found.administrators == (0, 1000)
    assert found.hsm["a"].sockets == (Path("/run/a-0.sock"), Path("/run/a-1.sock"))
    assert found.hsm["a"].deadline_seconds == 5.0
    assert found.limits == Limits(message_bytes=65536, message_seconds=2.5)
    assert (found.socket.mode, found.socket.group) == (0o666, "openk")
    assert found.metrics.socket == Path("/run/m.sock")
    assert found.audit.origin == "example.com/log"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # unknown keys, with the nearest match
        (f"{HSM}[limits]\nmesage_bytes = 1", "4: limits.mesage_bytes: is not a key of openkd: did you mean limits.message_bytes?"),
        (f"stat = '/x'\n{HSM}", "1: stat: is not a key of openkd: did you mean state?"),
        (f"{HSM}[limit]\nqueue = 3", "3: limit: is not a key of openkd: did you mean limits?"),
        (f"{HSM}handof_bytes = 1", "3: hsm.main.handof_bytes: is not a key of openkd: did you mean hsm.main.handoff_bytes?"),
        (f"colour = 1\n{HSM}", "1: colour: is not a key of openkd: known here: state, policies, administrators"),
        (f"development = true\n{HSM}", "1: development: is not a key of openkd"),
        (f"{HSM}[log.file]\nx = 1", "3: log.file: is not a key of openkd: known here: level, format"),
        # types and ranges
        (f"{HSM}[limits]\nmessage_bytes = 16777217", "4: limits.message_bytes: Expected `int` <= 16777216"),
        (f"{HSM}[limits]\nmessage_bytes = 1023", "4: limits.message_bytes: Expected `int` >= 1024"),
        (f"{HSM}[limits]\nin_flight = '64'", "4: limits.in_flight: Expected `int`, got `str`"),
        (f"{HSM}[limits]\nin_flight = true", "4: limits.in_flight: Expected `int`, got `bool`"),
        (f"{HSM}[limits]\nmessage_seconds = nan", "4: limits.message_seconds: Expected `float`"),
        (f"{HSM}[limits]\nmessage_seconds = inf", "4: limits.message_seconds: Expected `float` <= 600"),
        (f"{HSM}[log]\nlevel = 'loud'", "4: log.level: Invalid enum value 'loud'"),
        (f"{HSM}[audit]\norigin = 'a b'", "4: audit.origin: Expected `str` matching"),
        (f"{HSM}[crypto]\nalgorithms = ['rsa-2049']", "4: crypto.algorithms: there is no algorithm 'rsa-2049': did you mean rsa-2048?"),
        (f"{HSM}[crypto]\nalgorithms = []", "4: crypto.algorithms: Expected `array` of length >= 1"),
        (f"{HSM}[crypto]\nrsa_bits = 1024", "4: crypto.rsa_bits: Invalid enum value 1024"),
        (f"{HSM}[alerts.slow]\nclear_at = 9", "3: alerts.slow: clear_at 9 lies beyond raise_at 2"),
        (f"{HSM}[alerts.slow]\nraise_at = nan", "4: alerts.slow.raise_at: Expected `float`"),
        (f"{HSM}[socket]\nmode = 0o1777", "4: socket.mode: Expected `int` <= 511"),
        (f"{HSM}[socket]\npath = 'run/x'", "4: socket.path: Expected an absolute path"),
        (f"state = 3\n{HSM}", "1: state: Expected a path in quotes, got `int`"),
        (f"state = ''\n{HSM}", "1: state: Expected an absolute path"),
        (f'state = "/x\\u0000y"\n{HSM}', "1: state: Expected an absolute path"),
        (f"log = 'debug'\n{HSM}", "1: log: must be a table: [log]"),
        # administrators
        (f"administrators = ['nobody-of-that-name']\n{HSM}", "1: administrators: no user 'nobody-of-that-name' on this host"),
        (f"administrators = []\n{HSM}", "1: administrators: name at least one"),
        (f"administrators = [-1]\n{HSM}", "1: administrators: a uid is 0 to 4294967294"),
        (f"administrators = [4294967295]\n{HSM}", "1: administrators: a uid is 0 to 4294967294"),
        (f"administrators = [1.5]\n{HSM}", "1: administrators: Expected `int`, got `float`"),
        (f"administrators = 'root'\n{HSM}", "1: administrators: Expected `array`, got `str`"),
        (f"administrators = [['root']]\n{HSM}", "1: administrators: Expected `int`, got `array`"),
        # HSMs
        ("", "hsm: no HSM is named: add a table [hsm.NAME] with `sockets`"),
        ("[hsm]", "1: hsm: no HSM is named"),
        ("hsm = 3", "1: hsm: must be tables: [hsm.NAME]"),
        ("[hsm]\nmain = 3", "2: hsm.main: must be a table: [hsm.main]"),
        ("[hsm.main]", "1: hsm.main: sockets is missing"),
        ("[hsm.main]\nsockets = []", "2: hsm.main.sockets: Expected `array` of length >= 1"),
        ("[hsm.Main]\nsockets = ['/x']", "1: hsm.Main: an HSM's name is 1 to 32 of a-z, 0-9 and -"),
        (f"{HSM}uri = 'pkcs11:token=a?pin-value=1234'", "3: hsm.main.uri: holds a PIN"),
        (f"{HSM}[hsm.b]\ngroup = ['man']", "4: hsm.b.group: no HSM is named 'man': did you mean main?"),
        (f"{HSM}[hsm.b]\ngroup = ['other']", "4: hsm.b.group: no HSM is named 'other': add a table [hsm.other] with `sockets`"),
        (f"{HSM}[hsm.b]\ngroup = ['b']", "4: hsm.b.group: b is a group itself: name HSMs that have sockets"),
        (f"{HSM}[hsm.b]\ngroup = ['main', 'main']", "4: hsm.b.group: main is in hsm.b.group already: an HSM is in one group, once"),
        (f"{HSM}[hsm.b]\ngroup = ['main']\n[hsm.c]\ngroup = ['main']", "6: hsm.c.group: main is in hsm.b.group already"),
        (f"{HSM}[hsm.b]\ngroup = ['main']\nsockets = ['/x']", "4: hsm.b.group: a group has no sockets of its own"),
        (f"{HSM}[hsm.b]\ngroup = ['main']\nbreaker_seconds = 3", "4: hsm.b.group: a group has nothing but its members"),
        (f"{HSM}[hsm.b]\ngroup = []", "4: hsm.b.group: Expected `array` of length >= 1"),
        (f"{HSM}braker_seconds = 3", "3: hsm.main.braker_seconds: is not a key of openkd: did you mean hsm.main.breaker_seconds?"),
        # rules between keys
        (f"{HSM}[hsm.b]\nsockets = ['/run/openk-hsm/main.sock']", "4: hsm.b.sockets: /run/openk-hsm/main.sock is also hsm.main.sockets"),
        (f"{HSM}[backup]\nfolder = '/var/lib/openk'", "4: backup.folder: /var/lib/openk is where the state itself is: name a folder of its own, on another disk"),
        (f"{HSM}[backup]\nfolder = '/var/lib/openk/audit/x'", "4: backup.folder: /var/lib/openk/audit/x is where the state itself is: name a folder of its own, on another disk"),
        (f"{HSM}[backup]\nevery_seconds = 60\nwarn_seconds = 59", "5: backup.warn_seconds: must not be less than backup.every_seconds: each backup would be old before the next"),
        (f"{HSM}[metrics]\nsocket = '/run/openk/openkd.sock'", "4: metrics.socket: /run/openk/openkd.sock is also socket.path"),
        (f"{HSM}[socket]\npath = '/{'x' * 107}'", "4: socket.path: /xxx"),
        (f"{HSM}[limits]\nmessage_bytes = 8388608", "4: limits.message_bytes: must not exceed limits.locked_memory_per_uid_bytes"),
        (f"{HSM}[limits]\nlocked_memory_per_uid_bytes = 8388608", "4: limits.locked_memory_per_uid_bytes: must not exceed"),
        # no TOML
        ("[hsm", "not TOML: Expected ']' at the end of a table declaration (at end of document)"),
        ("a = 1\na = 2\n", "not TOML: Cannot overwrite a value (at line 2, column 6)"),
        ("x = " + "[" * 5000 + "]" * 5000, "not TOML: "),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    (mistake,) = mistakes(tmp_path, text)
    assert mistake.startswith(expected)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = "stat = 1\npolicies = 2\n[hsm.a]\n[limits]\nqueue = 0\n[logs]\n"
    assert [mistake.split(": ")[1] for mistake in mistakes(tmp_path, text)] == [
        "hsm.a",
        "limits.queue",
        "stat",
        "policies",
        "logs",
    ]


def test_a_pin_is_not_repeated(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, f"{HSM}uri = 'pkcs11:token=a?pin-value=1234'")
    assert "1234" not in mistake


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "No such file or directory: name a readable file with --config"),
        (lambda path: path.mkdir(), "Is a directory: name a readable file with --config"),
        (lambda path: path.write_bytes(b"# caf\xe9"), "byte 5 is not UTF-8"),
        (lambda path: path.write_bytes(b"#" * ((1 << 20) + 1)), "larger than 1048576 bytes"),
        (lambda path: path.write_text("a = " + "9" * 5000), "not TOML: Exceeds the limit"),
        (lambda path: path.write_text("a = " + "[" * 20_000), "not TOML: "),
        (lambda path: path.write_text("a." * 20_000 + "a = 1"), "not TOML: "),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read(tmp_path: Path, make: object, expected: str) -> None:
    path = tmp_path / "openkd.toml"
    make(path)  # type: ignore[operator]
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert expected in str(caught.value)


@settings(max_examples=200)
@given(st.one_of(st.text(), st.text(alphabet="[hsm.main]\n=\"/x,{}#'\\ 0_l")))
def test_any_text_is_a_configuration_or_a_config_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            load(written(Path(folder), text))
        except ConfigError as error:
            assert error.mistakes  # noqa: PT017 - which of both happens is the text's affair
    lines_of(text)


scalars = st.one_of(
    st.integers(-5, 1 << 40), st.booleans(), st.sampled_from(["/x", "x", "", "root", "json"]), st.floats(-1, 1e9)
)
values = st.one_of(scalars, st.lists(scalars, max_size=3))
NAMES = [
    "state",
    "policies",
    "administrators",
    "socket",
    "limits",
    "hsm",
    "log",
    "queue",
    "path",
    "mode",
    "level",
    "sockets",
    "main",
]
documents = st.dictionaries(
    st.sampled_from(NAMES),
    st.one_of(
        values,
        st.dictionaries(st.sampled_from(NAMES), st.one_of(values, st.dictionaries(st.sampled_from(NAMES), values))),
    ),
)


@settings(max_examples=200)
@given(documents)
def test_any_document_is_a_configuration_or_a_config_error(document: dict[str, object]) -> None:
    """And what is accepted is within every range: msgspec agrees when it is asked again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "openkd.toml"
        path.write_text(_toml(document), "utf-8")
        assert tomllib.loads(path.read_text("utf-8")) == document
        try:
            found = load(path)
        except ConfigError:
            return
        assert found.hsm
        assert found.administrators
        assert 1 <= found.limits.queue <= 1 << 20


def _toml(document: dict[str, object]) -> str:
    """Inline tables and plain values: enough for what the strategy makes."""

    def text(value: object) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{name} = {text(inner)}" for name, inner in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(text(inner) for inner in value) + "]"
        if isinstance(value, bool):
            return str(value).lower()
        return repr(value).replace("'", '"')

    return "".join(f"{name} = {text(value)}\n" for name, value in document.items())


def test_lines_are_found_in_every_notation() -> None:
    text = 'a = 1\n[t] # c\nb.c = 2\n"q" = 3\n[t.u]\nd= 4\n[[v]]\n e =5\n# f = 6\n'
    assert lines_of(text) == {
        ("a",): 1,
        ("t",): 2,
        ("t", "b", "c"): 3,
        ("t", "q"): 4,
        ("t", "u"): 5,
        ("t", "u", "d"): 6,
        ("v",): 7,
        ("v", "e"): 8,
    }


def test_nothing_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, HSM)
    before = load(path)
    for name in (
        "OPENK_SOCKET",
        "OPENK_STATE",
        "HOME",
        "XDG_RUNTIME_DIR",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
        "USER",
    ):
        monkeypatch.setenv(name, "/somewhere/else")
    assert load(path) == before


# ---- openkd --dev DIR ----------------------------------------------------------------------------------------------


def test_development_is_all_inside_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "with spaces"
    found = development(folder)
    assert found.state == folder / "state"
    assert found.socket.path == folder / "openkd.sock"
    assert found.hsm["dev"].sockets == (folder / "hsm-0.sock",)
    assert found.policies == folder / "policies"
    assert found.administrators == (os.getuid(),)
    assert found.development
    for made in (folder, found.state, found.policies):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    # and the policies are a set that can be put in force
    assert Engine(found.policies, found.administrators).policies == 2
    copied = {
        path.relative_to(found.policies): path.read_bytes() for path in found.policies.rglob("*") if path.is_file()
    }
    assert copied == {
        path.relative_to(shipped_policies()): path.read_bytes()
        for path in shipped_policies().rglob("*.*")
        if path.is_file()
    }


def test_development_leaves_edited_policies(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    found = development(folder)
    (found.policies / "20-mine.cedar").write_text("// mine\n", "utf-8")
    (found.policies / "00-default.cedar").unlink()
    (found.state / "kept").write_text("x", "utf-8")
    assert development(folder) == found
    assert (found.policies / "20-mine.cedar").exists()
    assert not (found.policies / "00-default.cedar").exists()
    assert (found.state / "kept").exists()


def test_development_takes_up_where_a_start_was_interrupted(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    (folder / "policies.partial").mkdir(parents=True)
    (folder / "policies.partial" / "junk.cedar").write_text("garbage", "utf-8")
    assert Engine(development(folder).policies, (os.getuid(),)).policies == 2
    assert not (folder / "policies.partial").exists()


def test_development_in_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert development(Path("dev")).socket.path == tmp_path / "dev" / "openkd.sock"


def test_development_where_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(ConfigError, match="choose another folder for --dev"):
        development(tmp_path / "file" / "dev")
    with pytest.raises(ConfigError, match="choose another folder for --dev"):
        development(tmp_path / "file")


def test_development_where_a_sockets_path_would_be_too_long(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose a shorter folder"):
        development(tmp_path / ("x" * 100))
    assert not list(tmp_path.iterdir())


# ---- the page --------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_page_is_made_from_the_types() -> None:
    assert PAGE.read_text("utf-8") == reference()


def test_the_pages_example_works(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", reference(), re.DOTALL)
    assert len(examples) == 5
    for example in examples:
        load(written(tmp_path, example))


def test_every_key_is_on_the_page() -> None:
    page = reference()
    for struct in (Config, Hsm, Limits):
        for field in msgspec.structs.fields(struct):
            if field.name != "development":
                assert f"`{field.name}`" in page or f"[{field.name}]" in page
