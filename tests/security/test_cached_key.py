"""A cached key, whose bytes the test knows: while it is cached they are in locked memory and nowhere else, whole, in
pieces or as an AES key schedule; once openk is sealed, or their time is over, they are nowhere."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import openk
from openk_daemon.hierarchy.hierarchy import Hierarchy
from openk_daemon.hsms import Hsms
from openk_daemon.keys.keyring import Keyring
from openk_daemon.store.sqlite import SqliteStore
from openk_hsm.lane import WorkerLane
from openk_hsm.pending import settle
from openk_memory.pool import Pool
from tests.security.test_whole_image import IDLE, OPEN_MEMORY
from tests.support.daemon import RunningDaemon, copy_template, running_daemon, template
from tests.support.scan import Hit, scan, unlocked
from tests.support.tokens import URI, worker

__all__ = ["template"]

KEY = "v/cached"


def extract(folder: Path) -> bytes:
    """What somebody with the store, the token and its PIN can do: the key, out of a stopped daemon's folder."""
    environment = {**os.environ, "SOFTHSM2_CONF": str(folder / "softhsm2.conf")}

    async def read(socket: Path) -> bytes:
        store = SqliteStore(str(folder / "state"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            lane = WorkerLane("dev", [str(socket)])
            nursery.start_soon(lane.run)
            await lane.ready()
            keyring = Keyring(Hierarchy(Hsms.single(lane), store, lambda: datetime.now(UTC)), Pool(1 << 20))
            state = await settle(keyring.find(KEY))
            key = bytes(await settle(keyring.openings.material(state, state.newest)))
            keyring.openings.clear()
            nursery.cancel_scope.cancel()
        store.close()
        return key

    socket = folder / "extract.sock"
    with worker(URI, socket, folder / "pin", environment):
        return trio.run(read, socket)


def work(client: openk.Client, sealed: bytes) -> None:
    """Sizes that go different ways through libcrypto."""
    for size in (1, 16, 300, 5000, 200_000):
        made = client.key.encrypt(KEY, b"\x5a" * size).ciphertext
        assert len(client.key.decrypt(KEY, made).plaintext) == size
    client.key.decrypt(KEY, sealed)


def found(daemon: RunningDaemon, key: bytes) -> list[Hit]:
    return scan(daemon.pids["openkd"], [key])


def test_a_cached_key_is_where_it_may_be(template: Path, tmp_path: Path) -> None:
    folder = copy_template(template, tmp_path / "dev")
    with running_daemon(folder) as daemon, daemon.client() as client:
        client.vault.create("v")
        client.key.create(KEY, "aes-256-gcm", protection="cached")
        sealed = client.key.encrypt(KEY, b"plain", aad=b"").ciphertext
    key = extract(folder)
    header, nonce, rest = sealed[:23], sealed[23:35], sealed[35:]  # docs/formats.md
    assert AESGCM(key).decrypt(nonce, rest, header) == b"plain", "this is not the key"
    with running_daemon(folder, program=OPEN_MEMORY) as daemon, daemon.client() as client:
        sealed = client.key.encrypt(KEY, b"plain").ciphertext
        work(client, sealed)
        time.sleep(IDLE)
        hits = found(daemon, key)
        assert unlocked(hits) == []
        assert {hit.form for hit in hits} == {"raw"}, "the search does not see the key where it must be"
        assert scan(daemon.pids["hsm-0"], [key]) == []
        client.system.seal()
        time.sleep(IDLE)
        assert found(daemon, key) == []
        client.system.unseal()
        work(client, sealed)
        time.sleep(IDLE)
        assert unlocked(found(daemon, key)) == []
        log = daemon.log
    assert key.hex() not in log
