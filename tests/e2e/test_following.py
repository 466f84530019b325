"""One request, followed from the client's error through the daemon's lines to those of the worker that did it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import openk
from openk.errors import KeyFault
from tests.support.daemon import RunningDaemon, running_daemon

TURNS = 8
"""Refused requests of each client: together fewer than lines of one event are written before they are counted."""
_FOR_MACHINES = '[log]\nformat = "json"\n'
_DEBUG = '[log.levels]\ncrypto = "debug"\nhsm = "debug"\n'


def lines(daemon: RunningDaemon) -> Iterator[dict[str, Any]]:  # Any: JSON
    """Of daemon and workers; only the daemon's have a category."""
    for line in daemon.log.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def of_workers(daemon: RunningDaemon) -> list[dict[str, Any]]:  # Any: JSON
    return [line for line in lines(daemon) if "category" not in line and "operation" in line]


def configure(folder: Path, text: str) -> None:
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "1.toml").write_text(text)


def tampered(client: openk.Client, name: str) -> bytes:
    sealed = bytearray(client.key.encrypt(name, b"hello").ciphertext)
    sealed[-1] ^= 1
    return bytes(sealed)


def refused_request(client: openk.Client, name: str, sealed: bytes) -> str:
    """The id of a request that the device refuses."""
    with pytest.raises(KeyFault) as caught:
        client.key.decrypt(name, sealed)
    assert caught.value.code == "key.ciphertext_invalid"
    assert caught.value.request is not None
    return caught.value.request


def test_two_clients_at_once_are_told_apart(dev_folder: Path) -> None:
    configure(dev_folder, _FOR_MACHINES + _DEBUG)
    refused: dict[str, set[str]] = {}
    with running_daemon(dev_folder) as daemon:
        with daemon.client() as client:
            client.vault.create("follow")
            for name in ("follow/a", "follow/b"):
                client.key.create(name, "aes-256-gcm")

        def work(name: str) -> None:
            with daemon.client() as client:
                sealed = tampered(client, name)
                refused[name] = set()
                for _ in range(TURNS):
                    for _ in range(4):
                        client.key.encrypt(name, b"fine")
                    refused[name].add(refused_request(client, name, sealed))

        clients = [Thread(target=work, args=(name,)) for name in ("follow/a", "follow/b")]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        found = list(lines(daemon))
    assert [len(ids) for ids in refused.values()] == [TURNS, TURNS]
    worker = [line for line in found if "category" not in line and line.get("operation") in {"encrypt", "decrypt"}]
    slots: dict[str, set[str]] = {"follow/a": set(), "follow/b": set()}
    asked = {line["request"]: line["key"] for line in found if "category" in line and str(line.get("key", "")) in slots}
    for line in worker:
        if line.get("request") in asked:
            slots[asked[line["request"]]].add(line["key"])
    shared = slots["follow/a"] & slots["follow/b"]  # their vault's key
    own = {name: of_one - shared for name, of_one in slots.items()}
    assert [len(of_one) for of_one in own.values()] == [1, 1], slots
    for name, ids in refused.items():
        (slot,) = own[name]
        of_client = [line for line in worker if line["event"] == "operation refused" and line["key"] == slot]
        assert sorted(line["request"] for line in of_client) == sorted(ids)  # each once, and no other client's
        assert {(line["code"], line["operation"]) for line in of_client} == {("key.ciphertext_invalid", "decrypt")}
        fine = [line["request"] for line in worker if line["event"] == "operation done" and line["key"] == slot]
        assert len(set(fine)) == len(fine) == 4 * TURNS + 1  # each with an id of its own
        assert {asked[request] for request in fine} == {name}


def test_a_request_is_followed_through_its_workers_death(dev_folder: Path) -> None:
    configure(dev_folder, _FOR_MACHINES)
    with running_daemon(dev_folder) as daemon, daemon.client(60) as client, daemon.client() as other:
        client.vault.create("follow")
        client.key.create("follow/a", "aes-256-gcm")
        sealed = tampered(client, "follow/a")
        before = refused_request(client, "follow/a", sealed)
        victim = daemon.pids["hsm-0"]
        daemon.signal(signal.SIGSTOP, "hsm-0")
        after: list[str] = []
        thread = Thread(target=lambda: after.append(refused_request(client, "follow/a", sealed)))
        thread.start()
        until = time.monotonic() + 20
        while not other.hsm.status()[0].in_flight:
            assert time.monotonic() < until
            time.sleep(0.01)
        daemon.signal(signal.SIGKILL, "hsm-0")
        thread.join()
        (request,) = after
        refusals = {line["request"]: line for line in of_workers(daemon) if line["event"] == "operation refused"}
        (lost,) = [line for line in lines(daemon) if line["event"] == "hsm.worker.lost"]
    assert "deaths" not in refusals[before]
    assert refusals[before]["pid"] == victim
    assert (refusals[request]["deaths"], refusals[request]["operation"]) == (1, "decrypt")
    assert refusals[request]["pid"] != victim
    assert refusals[request]["device"].startswith("CKR_")
    assert request in [lost["request"], *lost.get("requests", [])]
