"""Sets that cannot be put in force: each is refused with a sentence that says what to do, and names no path."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from openk_daemon.policy.engine import Engine
from openk_daemon.policy.shipped import SCHEMA
from openk_daemon.refusal import Refusal
from tests.support.policies import ADMINISTRATOR, names, policy_folder

GOOD = "permit (principal, action, resource) when { principal.administrator };\n"


def refused(folder: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        Engine(folder, {ADMINISTRATOR}, names=names)
    text = f"{caught.value} {caught.value.details}"
    assert str(folder) not in text
    assert str(folder.parent) not in text
    return caught.value


def mistakes(folder: Path) -> list[str]:
    refusal = refused(folder)
    assert refusal.code.name == "policy.invalid"
    found = refusal.details["mistakes"]
    assert isinstance(found, list)
    assert str(found[0]) in refusal.message
    return [str(mistake) for mistake in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "\n\npermit (principal, action, resource)\nwhen { principal.uid = 3 };",
            ":3: policy 1: '=' is not a valid operator",
        ),
        ('// ; "\n@id("half")\npermit (principal, action', ":2: policy 'half': unexpected end of input"),
        (f"{GOOD}permit (principal, action, resource);;", ":2: policy 3: "),
        (f"{GOOD}garbage", ":2: policy 2: "),
        (
            f'{GOOD}\nforbid (principal, action, resource) when {{ principal.unti == "x" }};',
            ":3: policy 2: attribute `unti`",
        ),
        ('permit (principal, action == Action::"key.sing", resource);', ":1: policy 1: unrecognized action"),
        ("permit (principal, action, resource is Kye);", ":1: policy 1: unrecognized entity type `Kye`"),
        ('permit (principal, action, resource) when { principal.uid == "root" };', ":1: policy 1: "),
        (
            'permit (principal, action, resource) when { principal.unit == "x" };',
            ":1: policy 1: unable to guarantee safety",
        ),
        ("permit (principal == ?principal, action, resource);", ":1: policy 1: a policy with ?principal"),
        (f'@id("a") {GOOD}@id("a") {GOOD}', ":2: @id('a') is also the id of line 1"),
        (f'@id("a b") {GOOD}', ":1: @id('a b'): an id is"),
        ("permit (principal, action, resource) when { context.time > 3 };", ":1: policy 1: attribute `time`"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_policy(tmp_path: Path, text: str, expected: str) -> None:
    folder = policy_folder(tmp_path / "p", {"50-mine.cedar": text})
    assert mistakes(folder)[0].startswith(f"50-mine.cedar{expected}")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    bad = "permit (principal, action, resource) when { x };\n"
    folder = policy_folder(tmp_path / "p", {"50-a.cedar": bad + GOOD + bad, "60-b.cedar": bad * 40})
    found = mistakes(folder)
    assert [mistake.split(": ")[0] for mistake in found[:3]] == ["50-a.cedar:1", "50-a.cedar:3", "60-b.cedar:1"]
    assert len(found) == 33
    assert found[-1] == "and 10 more"


@pytest.mark.parametrize("many", [100, 500, 30_000])
@pytest.mark.parametrize(
    "condition",
    [
        lambda many: " || ".join(["principal.administrator"] * many),
        lambda many: "(" * many + "true" + ")" * many,
        lambda many: "1" + "+1" * many + " > 0",
        lambda many: "if true then " * many + "true" + " else false" * many,
        lambda many: "principal" + ".a" * many,
        lambda many: "[" * many + "1" + "]" * many + " == []",
    ],
)
def test_deep_nesting_does_not_overflow_the_stack(tmp_path: Path, condition: Callable[[int], str], many: int) -> None:
    """Cedar's parser recurses: without a check before it, these end the process."""
    text = f"permit (principal, action, resource) when {{ {condition(many)} }};"
    (mistake,) = mistakes(policy_folder(tmp_path / "p", {"50-a.cedar": text}))
    assert mistake.startswith("50-a.cedar:1: policy 1: nested too deeply: use ")


@pytest.mark.parametrize("many", [60, 30_000])
@pytest.mark.parametrize(("opening", "closing"), [("{ a: ", " }"), ("Set<", ">")])
def test_a_deep_schema_does_not_overflow_the_stack(tmp_path: Path, opening: str, closing: str, many: int) -> None:
    text = f"entity User = {{ a: {opening * many}Long{closing * many} }};"
    (mistake,) = mistakes(policy_folder(tmp_path / "p", {SCHEMA: text}))
    assert mistake.startswith(f"{SCHEMA}: nested too deeply: copy the one shipped")


def test_a_policy_that_would_take_long_is_refused(tmp_path: Path) -> None:
    """Cedar's time grows with the square of the list."""
    actions = ", ".join(['Action::"key.sign"'] * 30_000)
    folder = policy_folder(tmp_path / "p", {"50-a.cedar": f"permit (principal, action in [{actions}], resource);"})
    (mistake,) = mistakes(folder)
    assert mistake.startswith("50-a.cedar:1: policy 1: longer than 65536 characters: make groups")


def test_a_missing_schema(tmp_path: Path) -> None:
    folder = policy_folder(tmp_path / "p")
    (folder / SCHEMA).unlink()
    assert mistakes(folder) == [f"{SCHEMA}: is missing: copy it from the policies shipped with openk"]


def test_a_schema_with_a_mistake(tmp_path: Path) -> None:
    folder = policy_folder(tmp_path / "p", {SCHEMA: "entity User { uid: Lnog };"})
    (mistake,) = mistakes(folder)
    assert mistake.startswith(f"{SCHEMA}: ")
    assert "copy the one shipped" in mistake


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"key.sign", ', ""),
        ("gid: Long,", ""),
        ("algorithm?: String,", ""),
        ("groups: Set<Long>", "groups: Set<String>"),
    ],
)
def test_the_schema_of_another_version(tmp_path: Path, old: str, new: str) -> None:
    folder = policy_folder(tmp_path / "p")
    text = (folder / SCHEMA).read_text("utf-8")
    assert old in text
    (folder / SCHEMA).write_text(text.replace(old, new), "utf-8")
    (mistake,) = mistakes(folder)
    assert mistake.startswith(f"{SCHEMA}: ")
    assert "of another version" in mistake


def test_a_folder_without_policies(tmp_path: Path) -> None:
    folder = policy_folder(tmp_path / "p", shipped=False)
    (mistake,) = mistakes(folder)
    assert "has no *.cedar file" in mistake
    assert "copy the shipped ones" in mistake


def test_files_without_policies(tmp_path: Path) -> None:
    folder = policy_folder(tmp_path / "p", {"a.cedar": "// nothing yet\n"}, shipped=False)
    (mistake,) = mistakes(folder)
    assert "hold no policy" in mistake


def test_a_missing_folder(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path / "nowhere")
    assert mistake == "the policy folder: No such file or directory: create it, or make it readable for the daemon"


def test_a_folder_that_everybody_may_write(tmp_path: Path) -> None:
    folder = policy_folder(tmp_path / "p")
    folder.chmod(0o777)
    assert mistakes(folder) == ["the policy folder: everybody may write to it: chmod o-w"]


@pytest.mark.parametrize("name", ["10-administrators.cedar", SCHEMA])
def test_a_file_that_everybody_may_write(tmp_path: Path, name: str) -> None:
    folder = policy_folder(tmp_path / "p")
    (folder / name).chmod(0o666)
    assert mistakes(folder) == [f"{name}: everybody may write to it: chmod o-w"]


def test_a_file_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = policy_folder(tmp_path / "p")
    stranger = os.stat(folder).st_uid + 12345
    if os.geteuid() == 0:
        os.chown(folder / "00-default.cedar", stranger, 0)
    else:  # only root can give files away: be a third user instead
        real = os.geteuid()
        monkeypatch.setattr("openk_daemon.policy.files.os.geteuid", lambda: stranger)
        stranger = real
    assert f"belongs to user {stranger}: chown it to root or to the daemon's user" in mistakes(folder)[0]


@contextmanager
def without_privileges() -> Generator[None]:
    """Root may read everything, so be nobody for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_cannot_be_read() -> None:
    with tempfile.TemporaryDirectory() as place:  # not tmp_path: nobody could not even enter that
        Path(place).chmod(0o711)
        folder = policy_folder(Path(place) / "p")
        (folder / "10-administrators.cedar").chmod(0)
        with without_privileges():
            found = mistakes(folder)
    assert found == ["10-administrators.cedar: Permission denied: make it a readable file"]


def test_things_that_are_no_files(tmp_path: Path) -> None:
    folder = policy_folder(tmp_path / "p")
    (folder / "50-folder.cedar").mkdir()
    assert mistakes(folder)[0].startswith("50-folder.cedar: ")
    (folder / "50-folder.cedar").rmdir()
    os.mkfifo(folder / "50-pipe.cedar", 0o644)
    assert mistakes(folder) == ["50-pipe.cedar: is no regular file: replace it by one"]
    (folder / "50-pipe.cedar").unlink()
    (folder / "50-link.cedar").symlink_to("gone.cedar")
    assert mistakes(folder)[0].startswith("50-link.cedar: is missing")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    folder = policy_folder(tmp_path / "p")
    (folder / "50-a.cedar").write_bytes(b"// caf\xe9\n")
    assert mistakes(folder) == ["50-a.cedar: byte 6 is not UTF-8: policy files are UTF-8 text"]


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    folder = policy_folder(tmp_path / "p")
    with (folder / "50-a.cedar").open("wb") as file:
        file.truncate((4 << 20) + 1)
    assert mistakes(folder)[0].startswith("50-a.cedar: larger than 4194304 bytes")


@pytest.mark.parametrize(
    "text",
    [
        "permit (principal, action, resource) when { principal.uid == 1000 };",
        f"{GOOD} forbid (principal, action, resource);",
        f'{GOOD} forbid (principal, action == Action::"policy.reload", resource) unless {{ principal.uid == 1000 }};',
        f"{GOOD} forbid (principal, action, resource) when {{ principal.uid + 9223372036854775807 > 0 }};",  # overflows
    ],
)
def test_a_set_that_locks_out_every_administrator(tmp_path: Path, text: str) -> None:
    refusal = refused(policy_folder(tmp_path / "p", {"50-a.cedar": text}, shipped=False))
    assert refusal.code.name == "policy.lockout"
    assert "no administrator could do" in refusal.message


@pytest.mark.parametrize(
    "condition",
    [
        'principal has unit && principal.unit == "admin.service"',
        'principal has unit && principal.unit like "session-*.scope"',
        'principal has executable && principal.executable == "/usr/bin/openk"',
        "principal.groups.contains(900)",
        'principal has name && principal.name == "olga"',
    ],
)
def test_an_administrator_who_must_come_from_somewhere_is_not_locked_out(tmp_path: Path, condition: str) -> None:
    text = f"permit (principal, action, resource) when {{ {condition} }};"
    Engine(policy_folder(tmp_path / "p", {"50-a.cedar": text}, shipped=False), {ADMINISTRATOR}, names=names)


def test_without_administrators_every_set_locks_out(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as caught:
        Engine(policy_folder(tmp_path / "p"), (), names=names)
    assert caught.value.code.name == "policy.lockout"


def test_hidden_and_other_files_and_folders_are_not_read(tmp_path: Path) -> None:
    folder = policy_folder(tmp_path / "p", {".x.cedar": "garbage", "x.cedar.bak": "garbage", "README.md": "garbage"})
    (folder / "examples").mkdir()
    (folder / "examples" / "x.cedar").write_text("garbage", "utf-8")
    assert Engine(folder, {ADMINISTRATOR}, names=names).policies == 2
