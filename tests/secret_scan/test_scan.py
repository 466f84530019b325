"""Secrets of each kind are planted and found; what is allowed is allowed for a reason, and only that."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.secret_scan.scan import (
    Allowed,
    Finding,
    committed,
    gather_history,
    judge,
    read_allowed,
    search,
    search_history,
)

# Put together here, so that this file holds none of them.
PLANTED = {
    "Private Key": "-----BEGIN EC " + "PRIVATE KEY-----\nMHcCAQEEIA==\n",
    "AWS Access Key": "aws = 'AKIA" + "IOSFODNN7EXAMPLF'\n",
    "GitHub Token": "token = 'ghp_" + "x1Y2z3" * 6 + "'\n",
    "PyPI Token": "pypi-AgEIcHlwaS5vcmc" + "a1B2c3D4" * 10 + "\n",
    "JSON Web Token": "a = 'eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U'\n",
    "Secret Keyword": "pass" + "word = 'correct horse battery'\n",
    "Basic Auth Credentials": "url = 'https://olga:" + "s3cr3tpw@example.org/'\n",
    "Hex High Entropy String": "x = '" + "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b" + "'\n",
    "Base64 High Entropy String": "x = 'qE9x0bK3mVnZ" + "tR7yLw2uHc5JpXfD8sGaQi4oNeBv6T1rYkUhMz+/'\n",
    "PIN": "so_" + "pin = '83024417'\n",
}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("name", ["a.py", "docs/a.md", "a.toml"])
def test_a_planted_secret_is_found(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"# pragma: allowlist secret\nx = 1\n{PLANTED[kind]}")
    found = search([name], tmp_path)
    assert kind in {one.kind for one in found}
    assert all((one.path, one.line) == (name, 3) for one in found)
    rest, _ = judge(found, read_allowed())
    assert kind in {one.kind for one in rest}


def test_a_comment_in_its_line_allows_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(PLANTED["PIN"].strip() + "  # pragma: allowlist secret\n")
    assert [one.kind for one in search(["a.py"], tmp_path)] == ["PIN"]


@pytest.mark.parametrize("text", ["openk-hsm serve --pin 83024417", "SO_PIN: '83024417'", "pkcs11:a?pin-value=83024417"])
def test_pins_are_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.sh").write_text(text)
    assert [one.kind for one in search(["a.sh"], tmp_path)] == ["PIN"]


@pytest.mark.parametrize("text", ["--pin-file /run/pin", 'pin = read_pin("prompt")', 'spin = "12345678"', "--pin-fd 3"])
def test_what_is_no_pin_is_not_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.sh").write_text(text)
    assert search(["a.sh"], tmp_path) == []


def test_a_file_is_found_by_its_name(tmp_path: Path) -> None:
    names = ["ca.pem", "deep/server.key", "home/.ssh/id_ed25519", ".env", "token.p12", "fine.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("nothing\n")
    assert {one.path for one in search(names, tmp_path)} == set(names) - {"fine.txt"}


def test_only_what_is_named_is_allowed() -> None:
    one, other = Finding("tests/a.py", "PIN", "0f", 3), Finding("tests/a.py", "PIN", "1f", 4)
    entry = Allowed("tests/*", "PIN", "because", frozenset({"0f", "2f"}))
    assert judge([one, other], [entry]) == ([other], ["tests/*: PIN: 2f"])
    assert judge([Finding("docs/a.md", "PIN", "0f", 3)], [entry])[0]
    named = Allowed("*", "PIN", "because", frozenset(), "v/[a-z]+")
    assert judge([Finding("a", "PIN", "0f", 1, "v/s"), Finding("a", "PIN", "1f", 2, "v/s1")], [named])[0][0].line == 2


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('path = "a"\nkind = "PIN"\nreason = "short"', "why is it no secret"),
        ('path = "tests/*"\nkind = "PIN"\nreason = "a reason that is long enough"', "only files of vectors"),
    ],
)
def test_an_entry_needs_a_reason_and_bounds(tmp_path: Path, row: str, says: str) -> None:
    path = tmp_path / "allowed.toml"
    path.write_text(f"[[allowed]]\n{row}\n")
    with pytest.raises(ValueError, match=says):
        read_allowed(path)


@pytest.fixture
def repository(tmp_path: Path) -> Callable[..., None]:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    return git


def test_history_remembers_what_was_taken_out(tmp_path: Path, repository: Callable[..., None]) -> None:
    path = tmp_path / "a.py"
    for text in (PLANTED["PIN"], "x = 1\n"):
        path.write_text(text)
        repository("add", "-A")
        repository("commit", "-qm", "a")
    assert search(committed(tmp_path), tmp_path) == []
    assert [(one.path, one.kind) for one in search_history(tmp_path)] == [("a.py", "PIN")]
    gather_history(tmp_path, tmp_path / "gathered")
    assert (tmp_path / "gathered/a.py").read_text().splitlines()[-1] in {"x = 1", PLANTED["PIN"].strip()}


def test_what_would_be_added_is_searched_what_is_ignored_is_not(tmp_path: Path, repository: Callable[..., None]) -> None:
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    for name in ("new.py", "ignored.py"):
        (tmp_path / name).write_text(PLANTED["PIN"])
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    assert set(committed(tmp_path)) == {".gitignore", "new.py"}
