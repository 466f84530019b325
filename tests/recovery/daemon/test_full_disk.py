"""A disk that fills up under the real daemon: refusals that say so, nothing half done, and work again when there is
room. The disk is a small tmpfs over the state folder, so this needs root."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import trio

from openk_daemon.config import Audit
from tests.recovery.daemon.assault import examine, load, public_key, small_disk
from tests.support.daemon import copy_template, running_daemon
from tests.support.load import Book, Refused, Wire, check, furnish

ROOM = 48 << 20
"""Bytes beyond those that the audit log holds in reserve."""


async def until(wire: Wire, admitted: bool) -> None:
    """Ask until the daemon admits requests, or does not."""
    with trio.fail_after(20):
        while True:
            (answer,) = await wire.ask([("random.bytes", {"length": 16})])
            if isinstance(answer, Refused):
                assert answer.code == "audit.unavailable", answer
            if isinstance(answer, Refused) is not admitted:
                return
            await trio.sleep(0.05)


@pytest.mark.parametrize("left", [0, 1 << 20], ids=["nothing left", "the reserve is touched"])
async def test_a_full_disk_stops_admission_and_no_more(template: Path, tmp_path: Path, left: int) -> None:
    folder = copy_template(template, tmp_path / "dev")
    book = Book()
    ballast = folder / "state" / "ballast"
    with small_disk(folder / "state", Audit().reserve_bytes + ROOM):
        with running_daemon(folder) as daemon:
            await furnish(daemon.socket, book)
            wire = Wire(daemon.socket)
            async with load(folder, book, random.Random(1), clients=4):
                await trio.sleep(0.5)
                fill(ballast, left)
                await until(wire, admitted=False)
                await trio.sleep(0.5)
                ballast.unlink()
                await until(wire, admitted=True)
                before = book.writes
                await trio.sleep(1.0)
                assert book.writes > before + 5, "no client got further"
            assert {code for _, code in book.refused} <= {"audit.unavailable", "store.full", "store.unavailable"}
            await check(daemon.socket, book)
            await wire.close()
            public = await public_key(folder)
        await examine(folder, public)


def fill(ballast: Path, left: int) -> None:
    """Until no more than `left` bytes are free."""
    with ballast.open("wb") as file:
        found = os.statvfs(ballast)
        size = found.f_bavail * found.f_frsize - left
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError:  # the daemon took some of it meanwhile
            os.posix_fallocate(file.fileno(), 0, size - (1 << 20))
