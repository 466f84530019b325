"""The scripts are good shell, and names are completed by asking the daemon."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from openk_tools.cli import make
from openk_tools.completion import SHELLS, VARIABLE
from tests.support.fake_daemon import FakeDaemon, Refusal
from tests.unit.tools.stage import run


@pytest.mark.parametrize("shell", SHELLS)
def test_script_is_good(shell: str) -> None:
    script = run(["completion", shell]).out
    assert VARIABLE.encode() in script
    program = shutil.which(shell)
    if program is not None:  # bash is everywhere; zsh and fish where they are installed
        subprocess.run([program, "-n"], input=script, check=True, capture_output=True)
    else:
        assert shell != "bash"


def complete(line: str, socket: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What bash would be offered for the last word of `line`."""
    from click.shell_completion import BashComplete  # noqa: PLC0415

    monkeypatch.setenv("OPENK_SOCKET", str(socket))
    words = line.split(" ")
    found = BashComplete(make(), {}, "openk", VARIABLE).get_completions(words[1:-1], words[-1])
    return [item.value for item in found]


def test_commands_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = tmp_path / "none"
    assert complete("openk key enc", none, monkeypatch) == ["encrypt"] or "encrypt" in complete(
        "openk key enc", none, monkeypatch
    )
    assert "--algorithm" in complete("openk key create v/k --al", none, monkeypatch)
    assert complete("openk key create v/k --algorithm rsa-2", none, monkeypatch) == ["rsa-2048"]
    assert "key.encrypt" in complete("openk policy explain key.en", none, monkeypatch)


def test_names_come_from_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "vault.list": {"vaults": [{"vault": "payments"}, {"vault": "people"}, {"vault": "shop"}]},
        "key.list": {"keys": [{"key": "payments/card"}, {"key": "payments/release"}]},
    }
    with FakeDaemon(tmp_path / "s", answers) as daemon:
        assert complete("openk vault describe p", daemon.path, monkeypatch) == ["payments", "people"]
        assert complete("openk key describe pa", daemon.path, monkeypatch) == ["payments/"]
        assert complete("openk key describe payments/c", daemon.path, monkeypatch) == ["payments/card"]


def test_without_a_daemon_or_leave_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete("openk vault describe p", tmp_path / "none", monkeypatch) == []
    with FakeDaemon(tmp_path / "s", {"vault.list": Refusal("policy.denied")}) as daemon:
        assert complete("openk vault describe p", daemon.path, monkeypatch) == []
