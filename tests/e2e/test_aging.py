"""What grows old, as operators and clients meet it: rules of rotation, and of retention. The real daemon on SoftHSM2."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import openk
import openk_tools.audit_verify as verifier
from tests.support.daemon import RunningDaemon, copy_template, running_daemon

RULES = """
[rotation.often]
after_uses = 3
action = "rotate"
keys = ["v/cards-*"]
[rotation.releases]
after_days = 365
algorithms = ["p-256"]
[rotation.much]
after_uses = 2
keys = ["v/told"]
[retention]
secret_versions = 2
[alerts]
clear_seconds = 0
[tuning]
rotation_seconds = 1
"""


def entries(client: openk.Client) -> list[dict[str, object]]:
    return [json.loads(entry.entry) for entry in client.audit.tail(limit=500)]


@pytest.fixture(scope="module")
def daemon(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = copy_template(template, tmp_path_factory.mktemp("rotation") / "dev")
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "10-rotation.toml").write_text(RULES, "utf-8")
    with running_daemon(folder) as running:
        with running.client() as client:
            client.vault.create("v")
        yield running


def test_a_key_that_was_used_often_enough_gets_another_version(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        client.key.create("v/release", "p-256")
        client.key.create("v/cards-eu", "aes-256-gcm")
        old = [client.key.encrypt("v/cards-eu", b"4111").ciphertext for _ in range(3)]
        daemon.wait_for("key.rotated")

        described = client.key.describe("v/cards-eu")
        assert (described.version, [version.uses for version in described.versions]) == (2, [3, 0])
        assert described.due == openk.results.KeyDue(None, "often", "rotate"), "not before it is used again"
        fresh = client.key.encrypt("v/cards-eu", b"4111")
        assert fresh.version == 2
        for ciphertext, version in ((old[0], 1), (fresh.ciphertext, 2)):
            opened = client.key.decrypt("v/cards-eu", ciphertext)
            assert (bytes(opened.plaintext), opened.version) == (b"4111", version)

        (told,) = [entry for entry in entries(client) if entry.get("event") == "key.rotate"]
        assert (told["by"], told["key"], told["version"], told["outcome"]) == ("rotation.often", "v/cards-eu", 2, "ok")
        assert [write["kind"] for write in told["writes"]] == ["key-version", "key-usage", "key"]  # type: ignore[attr-defined]
        (event,) = [event for event in client.system.events().events if event.kind == "keys.rotated"]
        assert (event.subject, event.value) == ("often", 1.0)
        listed = {key.key: key.due for key in client.key.list("v")}
        release = listed["v/release"]
        assert release is not None
        assert (release.rule, release.action) == ("releases", "tell")
        assert release.at is not None
        assert client.system.health().components["rotation"]["state"] == "ok"
        head = client.audit.head()  # signed up to here
    report = verifier.verify_folder(str(daemon.folder / "state" / "audit"), verifier.read_public_key(head.verifier_key))
    assert report.head.size >= head.signed_size > 0


def test_a_key_that_is_due_is_told_of_until_somebody_rotates_it(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        client.key.create("v/told", "aes-256-gcm")
        for _ in range(2):
            client.key.encrypt("v/told", b"x")
        daemon.wait_for("alert.raised alert=rotation_overdue")
        (row,) = [row for row in client.system.alerts().alerts if row.alert == "rotation_overdue"]
        assert (row.raised, row.severity, row.value) == (True, "ticket", 1.0)
        assert client.system.health().components["rotation"]["state"] == "degraded"
        assert 'openk_rotation_overdue{rule="much"} 1' in client.system.metrics()
        assert client.key.describe("v/told").version == 1
        client.key.rotate("v/told")
        daemon.wait_for("alert.cleared alert=rotation_overdue")
        assert client.system.health().components["rotation"]["state"] == "ok"
        shown = {setting.key: setting for setting in client.system.config()}
        assert shown["rotation.much.after_uses"].value == 2
        assert shown["rotation.much.after_uses"].origin == f"{daemon.folder}/conf.d/10-rotation.toml:10"
        assert shown["rotation.much.after_uses"].live


def test_only_so_many_versions_of_a_secret_stay(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        for number in range(1, 5):
            client.secret.put("v/password", f"value {number}".encode())
        kept = client.secret.get("v/password", version=3).value
        assert kept is not None
        assert bytes(kept) == b"value 3"
        with pytest.raises(openk.Error) as refused:
            client.secret.get("v/password", version=2)
        assert refused.value.code == "secret.version_unknown"
        puts = [entry for entry in entries(client) if entry.get("secret") == "v/password" and entry["method"] == "secret.put"]
        gone = [[write["version"] for write in entry["writes"] if write["sha256"] is None] for entry in puts]  # type: ignore[attr-defined]
        assert [len(versions) for versions in gone] == [0, 0, 1, 1], "each put tells what went with it"
        rules = daemon.folder / "conf.d" / "20-more.toml"
        rules.write_text("[retention]\nsecret_versions = 0\nchanges = 2000\n", "utf-8")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("config.changed", times=2)
        for _ in range(3):
            client.secret.put("v/password", b"x")
        assert client.secret.get("v/password", version=3).value is not None, "a reload lets all of them stay"
