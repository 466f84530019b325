"""What an operator sees and changes of a daemon that runs: its configuration, its log, its limits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import openk
from tests.support.daemon import RunningDaemon, running_daemon

ROOT = Path(__file__).parents[2]


def put(daemon: RunningDaemon, text: str, name: str = "10-test.toml") -> Path:
    """A file of DIR/conf.d."""
    folder = daemon.folder / "conf.d"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, "utf-8")
    return folder / name


def reload(daemon: RunningDaemon, client: openk.Client) -> dict[str, object]:
    """SIGHUP, and the audit log's entry about the configuration."""
    before = client.audit.head().size
    daemon.signal(signal.SIGHUP)
    for _ in range(200):
        for entry in client.audit.tail(first=before):
            found: dict[str, object] = json.loads(entry.entry)
            if found.get("event") == "config.reload":
                return found
    raise AssertionError(daemon.log)


def test_a_reload_changes_what_may_change_and_says_what_waits(dev_folder: Path) -> None:
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        path = put(daemon, '[log]\nlevel = "debug"\n[limits]\nin_flight = 32\n[cache]\nkeys = 7\n')
        compared = client.system.config_changes()
        assert compared.mistakes == []
        assert {(change.key, change.running, change.files, change.live) for change in compared.changes} == {
            ("log.level", "info", "debug", True),
            ("limits.in_flight", 64, 32, False),
            ("cache.keys", 1024, 7, False),
        }
        assert {change.origin for change in compared.changes} == {f"{path}:{line}" for line in (2, 4, 6)}
        assert reload(daemon, client)["changed"] == ["log.level"]
        settings = {setting.key: setting for setting in client.system.config()}
        assert (settings["log.level"].value, settings["log.level"].origin) == ("debug", f"{path}:2")
        assert settings["limits.in_flight"].value == 64, "it is in force until the next start"
        assert daemon.log.count("config.waits") == 2
        assert {change.key for change in client.system.config_changes().changes} == {"limits.in_flight", "cache.keys"}
        assert set(client.system.log_level().values()) == {"debug"}
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        assert client.system.config_changes().changes == []
        assert client.system.hello().limits["in_flight"] == 32


def test_alerts_and_health_take_other_numbers_with_a_reload(dev_folder: Path) -> None:
    """An alert whose limit is moved is raised, and one that loses its rule is cleared, without a restart."""
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        assert client.system.health().components["disk"]["state"] == "ok"
        path = put(daemon, "[health]\ndisk_free_share = 1.0\n[alerts.disk_low]\nfor_seconds = 0\n")
        changed = reload(daemon, client)["changed"]
        assert changed == ["health.disk_free_share", "alerts.disk_low.for_seconds"]
        assert client.system.health().components["disk"]["state"] == "degraded"
        daemon.wait_for("alert.raised")
        (row,) = [row for row in client.system.alerts().alerts if row.alert == "disk_low"]
        assert (row.raised, row.raise_at) == (True, 1.0)
        path.write_text("[alerts.disk_low]\nenabled = false\n", "utf-8")
        reload(daemon, client)
        daemon.wait_for("alert.cleared")
        assert "disk_low" not in {row.alert for row in client.system.alerts().alerts}
        assert client.system.health().components["disk"]["state"] == "ok"
        path.write_text("[alerts.slow]\nraise_at = 1\nclear_at = 3\n", "utf-8")
        assert reload(daemon, client)["outcome"] == "daemon.misconfigured"
        assert f"{path}:1: alerts.slow: clear_at 3 lies beyond raise_at 1" in daemon.log
        stream = client.follow()
        kinds = ["alert.raised", "alert.cleared", "config.refused", "policy.reloaded", "config.reloaded"]
        told: dict[str, openk.results.Event] = {}
        while not told.keys() >= set(kinds):
            event = next(stream)
            told[event.kind] = event
        assert (told["alert.raised"].subject, told["alert.raised"].severity) == ("disk_low", "ticket")
        assert told["alert.raised"].number < told["alert.cleared"].number < told["config.refused"].number
        assert client.system.events(stream.cursor).lost == 0


def test_new_keys_are_what_the_configuration_allows(dev_folder: Path) -> None:
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        client.vault.create("crypto")
        client.key.create("crypto/old", "rsa-2048")
        path = put(daemon, '[crypto]\nalgorithms = ["rsa-2048", "p-256"]\nrsa_bits = 3072\nprotections = ["wrapped"]\n')
        assert set(reload(daemon, client)["changed"]) == {"crypto.algorithms", "crypto.rsa_bits", "crypto.protections"}  # type: ignore[call-overload]
        refused = {
            "crypto.rsa_bits": lambda: client.key.rotate("crypto/old"),
            "crypto.algorithms": lambda: client.key.create("crypto/new", "ed25519"),
            "crypto.protections": lambda: client.key.create("crypto/new", "p-256", protection="resident"),
        }
        for setting, act in refused.items():
            with pytest.raises(openk.errors.KeyFault) as caught:
                act()
            assert (caught.value.code, caught.value.details["setting"]) == ("key.unsupported", setting)
        assert [one.key for one in client.key.list("crypto")] == ["crypto/old"]
        client.key.create("crypto/new", "p-256")
        assert client.key.sign("crypto/old", b"m", hash="sha-256").signature, "what is there stays usable"
        path.unlink()
        reload(daemon, client)
        assert client.key.rotate("crypto/old").version == 2


def test_a_mistake_changes_nothing_and_is_named(dev_folder: Path) -> None:
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        path = put(daemon, '[log]\nlevel = "debug"\nlevle = "info"\n')
        compared = client.system.config_changes()
        said = f"{path}:3: log.levle: is not a key of openkd: did you mean log.level?"
        assert (compared.changes, compared.mistakes) == ([], [said])
        assert reload(daemon, client)["outcome"] == "daemon.misconfigured"
        assert said in daemon.log
        assert set(client.system.log_level().values()) == {"info"}
        path.unlink()
        assert reload(daemon, client)["outcome"] == "ok"


def test_a_rate_limit_comes_with_a_reload_and_goes_with_one(dev_folder: Path) -> None:
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        path = put(daemon, '[rate.pings]\nper_second = 0.01\nburst = 2\nmethods = ["system.ping"]\nadministrators = true\n')
        reload(daemon, client)
        client.system.ping()
        client.system.ping()
        with pytest.raises(openk.errors.RequestFault) as caught:
            client.system.ping()
        assert caught.value.code == "request.rate_limited"
        assert caught.value.retry_after is not None
        assert 90 < caught.value.retry_after <= 100
        assert caught.value.details == {"limit": "pings"}
        assert client.system.health().status == "ok", "other methods are not limited"
        assert 'openk_rate_limited_total{limit="pings"} 1' in client.system.metrics()
        path.unlink()
        reload(daemon, client)
        client.system.ping()


def test_levels_change_at_run_time_and_a_reload_sets_them_back(dev_folder: Path) -> None:
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        with pytest.raises(openk.errors.VaultFault):
            client.key.describe("no/key")
        assert "request.refused" not in daemon.log
        assert client.system.log_level("requests", "debug") == {"requests": "debug"}
        with pytest.raises(openk.errors.VaultFault):
            client.key.describe("no/key")
        daemon.wait_for("request.refused")
        line = next(line for line in daemon.log.splitlines() if "request.refused" in line)
        assert "key=no/key" in line
        assert "vault=no" in line
        assert "uid=" in line
        assert client.system.log_level("crypto", "debug") == {"crypto": "debug"}
        client.vault.create("seen")
        client.key.create("seen/key", "aes-256-gcm")
        daemon.wait_for("method=key.create")
        done = next(line for line in daemon.log.splitlines() if "method=key.create" in line)
        assert all(part in done for part in ("request.done", "crypto", "key=seen/key", "hsm_ms=", "audit_ms="))
        told = [json.loads(entry.entry) for entry in client.audit.tail(first=max(0, client.audit.head().size - 8))]
        change = next(entry for entry in told if entry.get("method") == "system.log_level")
        assert (change["category"], change["level"]) == ("requests", "debug")
        reload(daemon, client)
        assert client.system.log_level("requests") == {"requests": "info"}
        assert client.system.log_level("crypto") == {"crypto": "info"}


def test_a_slow_request_is_told_of_with_its_stages(dev_folder: Path) -> None:
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        client.vault.create("slow")
        client.key.create("slow/key", "p-256")
        put(daemon, "[log]\nslow_seconds = 0.000001\n")
        reload(daemon, client)
        client.key.sign("slow/key", b"x", hash="sha-256")
        daemon.wait_for("method=key.sign")
        line = next(line for line in daemon.log.splitlines() if "request.slow" in line and "method=key.sign" in line)
        facts = dict(word.split("=", 1) for word in line.split() if "=" in word)
        assert (facts["key"], facts["vault"], facts["code"]) == ("slow/key", "slow", "ok")
        stages = {name: float(value) for name, value in facts.items() if name.endswith("_ms")}
        assert stages.keys() == {"policy_ms", "queue_ms", "hsm_ms", "audit_ms"}
        assert sum(stages.values()) == pytest.approx(1000 * float(facts["seconds"]), rel=0.2, abs=0.2)


def test_variables_and_files_are_shown_with_their_origin(dev_folder: Path) -> None:
    (dev_folder / "conf.d").mkdir()
    (dev_folder / "conf.d" / "1.toml").write_text('[log]\nlevel = "error"\nslow_seconds = 3\n', "utf-8")
    with running_daemon(dev_folder, environment={"OPENKD_LOG_LEVEL": "debug"}) as daemon, daemon.client() as client:
        settings = {setting.key: setting for setting in client.system.config()}
        assert (settings["log.level"].value, settings["log.level"].origin) == ("debug", "environment OPENKD_LOG_LEVEL")
        assert (settings["log.slow_seconds"].value, settings["log.slow_seconds"].origin[-13:]) == (3.0, "conf.d/1.toml:3"[-13:])
        assert settings["cache.keys"].origin == "default"
        reload(daemon, client)
        assert client.system.log_level("hsm") == {"hsm": "debug"}, "the process has forgotten its environment, not this"


def test_check_config_says_what_is_wrong_and_stops(tmp_path: Path) -> None:
    def check(text: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "openkd.toml").write_text(text, "utf-8")
        command = [sys.executable, "-m", "openk_daemon", "--config", str(tmp_path / "openkd.toml"), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    right = '[hsm.main]\nsockets = ["/run/x.sock"]\n'
    good = check(right, "--check-config")
    assert (good.returncode, good.stderr) == (0, "")
    bad = check(right + "[limits]\nqueu = 1\n", "--check-config")
    assert bad.returncode == 78  # daemon.misconfigured
    assert bad.stderr == f"openkd: {tmp_path}/openkd.toml:4: limits.queu: is not a key of openkd: did you mean limits.queue?\n"
    shown = check(right, "--show-config", OPENKD_LOG_LEVEL="error")
    assert 'log.level = "error"  # environment OPENKD_LOG_LEVEL\n' in shown.stdout
    assert f'hsm.main.sockets = ["/run/x.sock"]  # {tmp_path}/openkd.toml:2\n' in shown.stdout
    wrong = check(right, "--check-config", OPENKD_LOGLEVEL="error")
    assert wrong.returncode == 78
    assert "environment: OPENKD_LOGLEVEL: is not a variable of openkd: did you mean OPENKD_LOG_LEVEL?" in wrong.stderr


def test_only_administrators_may(daemon: RunningDaemon) -> None:
    """The schema has these methods in the group `administer` alone."""
    schema = (ROOT / "policies" / "openk.cedarschema").read_text("utf-8")
    (line,) = [line for line in schema.splitlines() if '"system.config"' in line]
    assert line.split(" in ")[1].startswith('["administer"]')
    assert '"system.config_changes"' in line
    assert '"system.log_level"' in line
