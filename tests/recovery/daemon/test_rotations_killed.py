"""kill -9 of the daemon while it rotates keys by itself, one after the other: each has its old version or, whole, its
new one, and the log tells of every one."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

import trio

import openk
from tests.recovery.daemon.assault import examine, public_key, seed
from tests.support.daemon import copy_template, running_daemon

KILLS = 3
RULES = """
[rotation.always]
after_uses = 1
action = "rotate"
algorithms = ["aes-256-gcm"]
[tuning]
rotation_seconds = 1
rotations_per_minute = 60_000
"""
NAMES = [*(f"v/wrapped-{number}" for number in range(8)), "v/resident", "v/cached"]


def encrypt(client: openk.Client, name: str) -> bytes:
    """Through whatever the kills do to connections."""
    until = time.monotonic() + 30
    while True:
        try:
            return client.key.encrypt(name, name.encode()).ciphertext
        except openk.Error:
            assert time.monotonic() < until, "the daemon does not come back"
            time.sleep(0.05)


def test_a_rotation_is_whole_or_has_not_been(template: Path, tmp_path: Path) -> None:
    chance = random.Random(seed())
    folder = copy_template(template, tmp_path / "dev")
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "rules.toml").write_text(RULES, "utf-8")
    sealed: list[tuple[str, bytes]] = []
    with running_daemon(folder) as daemon:
        with daemon.client() as client:
            client.vault.create("v")
            for name in NAMES:
                protection = name.removeprefix("v/").partition("-")[0]
                client.key.create(name, "aes-256-gcm", protection=protection)
        for kill in range(KILLS):
            with daemon.client() as client:
                sealed += [(name, encrypt(client, name)) for name in NAMES]
            daemon.wait_for("key.rotated", times=len(NAMES) * kill // 2 + 1)
            time.sleep(chance.uniform(0.0, 0.1))
            daemon.signal(signal.SIGKILL)
            daemon.wait_for("openkd ready", times=kill + 2)
        with daemon.client() as client:
            for name, ciphertext in sealed:
                assert bytes(client.key.decrypt(name, ciphertext).plaintext) == name.encode()
            wait_until_quiet(client)
            entries = [json.loads(entry.entry) for entry in client.audit.tail(first=0, limit=1000)]
            assert len(entries) < 1000
            told = Counter(entry["key"] for entry in entries if entry.get("event") == "key.rotate")
            for name in NAMES:
                described = client.key.describe(name)
                assert [version.version for version in described.versions] == [*range(1, described.version + 1)]
                assert described.version == told[name] + 1, "as many versions as the log tells of"
            assert {row.state for row in client.hsm.objects().objects} == {"ok"}, "no object of a token is left over"
        public = trio.run(public_key, folder)
    assert sum(told.values()) > len(NAMES), "there were too few rotations to kill"
    assert trio.run(examine, folder, public) > 0


def wait_until_quiet(client: openk.Client) -> None:
    """Until nothing is due any more: no newest version was used."""
    until = time.monotonic() + 30
    while any(client.key.describe(name).versions[-1].uses for name in NAMES):
        assert time.monotonic() < until, "it rotates for ever, or not at all"
        time.sleep(0.1)
