"""Starts that must not succeed: each ends with a status that says whether to try again, and a sentence that says what to do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.child import DROP, check_child
from tests.support.daemon import copy_template, make_template, running_daemon, start_daemon, with_backups
from tests.support.tokens import MODULE

MISCONFIGURED = 78
POLICIES = Path(__file__).parents[2] / "policies"


def refused_start(folder: Path) -> str:
    """What `openkd --dev folder` says when it gives up with EX_CONFIG."""
    folder.with_name(folder.name + ".log").unlink(missing_ok=True)
    daemon = start_daemon(folder)
    try:
        assert daemon.process.wait(30) == MISCONFIGURED, daemon.log
    finally:
        if daemon.process.poll() is None:
            daemon.kill()
    daemon.check_log()
    assert "ready" not in daemon.log
    return daemon.log


def fill(folder: Path) -> None:
    """State with something in it."""
    with running_daemon(folder) as daemon, daemon.client() as client:
        client.vault.create("kept")
        client.secret.put("kept/secret", b"value")


def still_there(folder: Path) -> None:
    """Nothing that was kept is lost."""
    with running_daemon(folder) as daemon, daemon.client() as client:
        value = client.secret.get("kept/secret").value
        assert value is not None
        assert bytes(value) == b"value"


# --- the PIN and the token ---


@pytest.mark.parametrize("pin", ["0000000000", "", None], ids=["wrong", "empty", "missing"])
def test_a_pin_that_is_not_the_pin(dev_folder: Path, pin: str | None) -> None:
    right = (dev_folder / "pin").read_text()
    if pin is None:
        (dev_folder / "pin").unlink()
    else:
        (dev_folder / "pin").write_text(pin)
    said = refused_start(dev_folder)
    assert "PIN" in said
    (dev_folder / "pin").write_text(right)
    (dev_folder / "pin").chmod(0o600)
    if pin == "0000000000":
        assert "hsm.pin" in said
        again = refused_start(dev_folder)  # the latch: not even the right PIN is tried before an operator says so
        assert "unlatch" in again
        for latch in dev_folder.glob("pin-*"):
            latch.unlink()
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        assert client.system.health().status == "ok"


def test_a_token_that_is_not_there_or_has_no_root_keys(dev_folder: Path, template: Path, tmp_path: Path) -> None:
    """Both at once: a token may be plugged in late, so the daemon waits ten seconds before it gives up."""
    pin = (dev_folder / "pin").read_text().strip()
    environment = {**os.environ, "SOFTHSM2_CONF": str(dev_folder / "softhsm2.conf")}
    made = ["softhsm2-util", "--init-token", "--free", "--label", "empty", "--pin", pin, "--so-pin", pin]
    subprocess.run([*made, "--module", MODULE], env=environment, check=True, capture_output=True, timeout=20)
    absent = copy_template(template, tmp_path / "absent")
    for folder, label in ((dev_folder, "empty"), (absent, "another")):
        uri = (folder / "token-uri").read_text()
        (folder / "token-uri").write_text(uri.replace("openk-dev", label))
    waiting = start_daemon(dev_folder)
    assert "hsm.token_missing" in refused_start(absent)
    assert waiting.process.wait(20) == MISCONFIGURED, waiting.log
    waiting.check_log()
    assert "hsm.token_uninitialised" in waiting.log


# --- the state folder ---


def test_state_that_others_can_write(dev_folder: Path) -> None:
    fill(dev_folder)
    (dev_folder / "state").chmod(0o770)
    assert "chmod go-w" in refused_start(dev_folder)
    (dev_folder / "state").chmod(0o700)
    still_there(dev_folder)


def test_a_folder_of_backups_that_is_not_fit(dev_folder: Path) -> None:
    """It could be reached no more later: the daemon is confined then."""
    backups = with_backups(dev_folder) / "backups"
    backups.chmod(0o770)
    assert f"backup.folder: others can write the backup folder {backups}" in refused_start(dev_folder)
    backups.rmdir()
    assert f"backup.folder: the backup folder {backups} does not exist" in refused_start(dev_folder)


def test_state_from_another_hsm(dev_folder: Path, tmp_path: Path) -> None:
    fill(dev_folder)
    other = make_template(tmp_path / "other")
    shutil.copytree(dev_folder / "state", other / "state")
    before = sorted((other / "state" / "audit").rglob("*"))
    said = refused_start(other)
    assert "store.foreign" in said
    assert "another HSM token" in said
    assert sorted((other / "state" / "audit").rglob("*")) == before
    still_there(dev_folder)


def test_state_from_another_version(dev_folder: Path) -> None:
    fill(dev_folder)
    _change_format(dev_folder / "state" / "store.db", +1)
    assert "store.foreign" in refused_start(dev_folder)
    _change_format(dev_folder / "state" / "store.db", -1)
    still_there(dev_folder)


def _change_format(database: Path, by: int) -> None:
    """As a later openk would have written it: with page checksums."""
    code = """
        import sys, apsw, apsw.sqlite_extra
        apsw.sqlite_extra.load(apsw.Connection(":memory:"), "cksumvfs")
        store = apsw.Connection(sys.argv[1], vfs="cksmvfs")
        store.pragma("user_version", store.pragma("user_version") + int(sys.argv[2]))
        store.close()
    """
    check_child(code, str(database), str(by))


def test_a_second_daemon_on_the_same_state(dev_folder: Path) -> None:
    with running_daemon(dev_folder) as daemon:
        second = subprocess.run(
            [sys.executable, "-m", "openk_daemon", "--dev", str(dev_folder), "--supervised"],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert second.returncode == MISCONFIGURED, second.stderr
        assert "another daemon listens there" in second.stderr
        with daemon.client() as client:
            assert client.system.ping(b"unharmed") == b"unharmed"


def test_a_second_daemon_on_the_same_state_behind_another_socket(dev_folder: Path, tmp_path: Path) -> None:
    with running_daemon(dev_folder) as daemon:
        config = tmp_path / "second.toml"
        config.write_text(configuration(dev_folder, socket_path=tmp_path / "second.sock"))
        second = run_config(config)
        assert second.returncode == MISCONFIGURED, second.stderr
        assert "another openkd" in second.stderr
        assert "Traceback" not in second.stderr
        with daemon.client() as client:
            assert client.system.ping(b"unharmed") == b"unharmed"


# --- the configuration ---


def configuration(folder: Path, socket_path: Path | None = None, **changes: str) -> str:
    """The file that says what --dev says, with top-level keys changed."""
    values = {
        "state": f'"{folder}/state"',
        "policies": f'"{folder}/policies"',
        "administrators": f"[{os.getuid()}]",
        "user": '"root"',  # tests may run as root: on purpose
        **changes,
    }
    top = "".join(f"{key} = {value}\n" for key, value in values.items())
    hsm = f'[hsm.main]\nsockets = ["{folder}/hsm-0.sock"]\n'
    return f'{top}{hsm}[socket]\npath = "{socket_path or folder / "openkd.sock"}"\nmode = 0o600\n'


def run_config(config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "openk_daemon", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


MISTAKES: dict[str, tuple[Callable[[Path], str], str]] = {
    "no TOML": (lambda folder: "state = [", "no.toml"),
    "an unknown key": (lambda folder: configuration(folder, sate='"/x"'), "sate"),
    "a value out of range": (lambda folder: configuration(folder) + "[limits]\nin_flight = 0\n", "in_flight"),
    "a wrong type": (lambda folder: configuration(folder, state="17"), "state"),
    "no HSM": (lambda folder: f'state = "{folder}/state"\n', "hsm"),
    "a group that is not there": (lambda folder: configuration(folder) + 'group = "no-such-group"\n', "no-such-group"),
    "a state folder that is missing": (lambda folder: configuration(folder, state=f'"{folder}/gone"'), "gone"),
    "a policy folder that is missing": (
        lambda folder: configuration(folder, policies=f'"{folder}/gone"'),
        "the policy folder",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_configuration(dev_folder: Path, name: str) -> None:
    (dev_folder / "state").mkdir(mode=0o700)
    shutil.copytree(POLICIES, dev_folder / "policies")
    make, word = MISTAKES[name]
    config = dev_folder / "no.toml"
    config.write_text(make(dev_folder))
    done = run_config(config)
    assert done.returncode == MISCONFIGURED, done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_no_configuration_at_all(tmp_path: Path) -> None:
    done = run_config(tmp_path / "none.toml")
    assert done.returncode == MISCONFIGURED
    assert "none.toml" in done.stderr


def test_policies_with_a_mistake_stop_the_start(dev_folder: Path) -> None:
    fill(dev_folder)
    (dev_folder / "policies" / "50-mine.cedar").write_text(
        'permit (principal, action == Action::"key.steal", resource);\n'
    )
    said = refused_start(dev_folder)
    assert "policy.invalid" in said
    assert "50-mine.cedar" in said


def test_policies_that_lock_everybody_out_stop_the_start(dev_folder: Path) -> None:
    fill(dev_folder)
    (dev_folder / "policies" / "10-administrators.cedar").unlink()
    assert "policy.lockout" in refused_start(dev_folder)


# --- read-only, as somebody who is not root ---


READ_ONLY = """
import sys
sys.argv[0] = "openkd"
from openk_daemon.cli import main
import openk_daemon.process, openk_daemon.wiring
from openk_daemon.store.database import load_checksums
load_checksums()  # from files that nobody may not read
drop()
sys.exit(main())
"""


def test_state_that_cannot_be_written(tmp_path: Path) -> None:
    """Root may write anything: the daemon runs as nobody here."""
    folder = tmp_path / "ours"
    (folder / "state").mkdir(parents=True)
    shutil.copytree(POLICIES, folder / "policies")
    (folder / "state").chmod(0o555)
    os.chown(folder, 65534, 65534)
    os.chown(folder / "state", 65534, 65534)
    for parent in (tmp_path, *list(tmp_path.parents)[:2]):
        parent.chmod(parent.stat().st_mode | 0o011)
    config = tmp_path / "config.toml"
    config.write_text(configuration(folder))
    done = subprocess.run(
        [sys.executable, "-c", DROP + READ_ONLY, "--config", str(config)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == MISCONFIGURED, done.stderr
    assert "cannot be written" in done.stderr


# --- the socket ---


def test_a_dead_socket_is_replaced(dev_folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(dev_folder / "openkd.sock"))
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        assert client.system.ping(b"echo") == b"echo"
        assert (dev_folder / "openkd.sock").stat().st_mode & 0o777 == 0o600
    assert not (dev_folder / "openkd.sock").exists()


def test_what_is_no_socket_is_left_alone(dev_folder: Path) -> None:
    (dev_folder / "openkd.sock").write_text("precious")
    assert "openkd.sock" in refused_start(dev_folder)
    assert (dev_folder / "openkd.sock").read_text() == "precious"


def test_a_folder_with_too_long_a_path(template: Path, tmp_path: Path) -> None:
    folder = copy_template(template, tmp_path / ("x" * 100))
    assert "too long" in refused_start(folder)
