"""The accept loop and the one task for all connections: overload, limits, draining, sockets left behind."""

from __future__ import annotations

import gc
import os
import resource
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from openk_daemon.call import Call, Outcome
from openk_daemon.serve import listen
from tests.daemon.serving.kit import Core, frame


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    made = Core(tmp_path, connections=1200)
    async with made.serve():
        yield made


async def test_without_descriptors_newcomers_wait_and_the_others_are_served(core: Core) -> None:
    old = core.client()
    assert (await old.call("system.ping"))[1] is None
    newcomers = [core.client() for _ in range(12)]
    # The clients' descriptors are there; the daemon's are counted out one by one below.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 4, hard))
    try:
        for newcomer in newcomers:
            await newcomer.send(frame(5, "system.ping"))
        await core.until(lambda: "accept.resting" in core.logged.text())
        for n in range(10):
            assert (await old.call("system.ping", n))[0] == n
        assert core.server.connections < 13
        assert core.metrics.connections_refused == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for newcomer in newcomers:
        assert (await newcomer.read())[0] == 5


async def test_past_the_limit_connections_are_closed_and_the_others_served(tmp_path: Path) -> None:
    core = Core(tmp_path, connections=3)
    async with core.serve():
        kept = [core.client() for _ in range(3)]
        for client in kept:
            await client.call("system.ping")
        assert await core.client().read_all() == []
        assert core.metrics.connections_refused == 1
        kept[0].close()
        await core.until(lambda: core.server.connections == 2)
        assert (await core.client().call("system.ping"))[1] is None
        assert (await kept[1].call("system.ping"))[1] is None


async def test_a_thousand_idle_connections_cost_little_and_no_locked_memory(core: Core) -> None:
    for _ in range(3):
        await core.client().call("system.ping", 1, echo=b"warm")
    gc.collect()
    before = resident()
    descriptors = len(os.listdir("/proc/self/fd"))
    idle = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(1000)]
    for n, sock in enumerate(idle):
        sock.connect(core.path)
        if n % 50 == 0:
            await trio.sleep(0.001)
    await core.until(lambda: core.server.connections == 1003)
    assert core.pool.in_use == 0
    assert len(os.listdir("/proc/self/fd")) - descriptors == 2000  # one here, one there
    gc.collect()
    assert (resident() - before) / 1000 < 10_000  # this process has both ends
    assert (await core.client().call("system.ping"))[1] is None
    for sock in idle:
        sock.close()
    await core.until(lambda: core.server.connections == 4)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_draining_answers_what_is_in_flight_and_closes_the_rest(core: Core) -> None:
    idle, busy = core.client(), core.client()
    assert (await idle.call("system.ping"))[1] is None
    core.ledger.hold = True
    await busy.send(frame(1, "system.ping") + frame(2, "system.ping") + frame(3, "system.ping")[:5])
    await core.until(lambda: len(core.ledger.waiting) == 2)
    cut: list[int] = []

    async def drain() -> None:
        cut.append(await core.server.drain(3))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        assert await idle.read_all() == []
        late = core.client()
        await busy.send(frame(4, "system.ping"))
        await trio.sleep(0.02)
        assert len(core.ledger.waiting) == 3, "that the third was refused is recorded, too"
        core.let_go()
        answers = {answer[0]: answer[1] for answer in await busy.read_all()}
        assert (answers[1], answers[2]) == (None, None)
        assert answers.keys() == {1, 2, 3}
    assert cut == [0]
    assert core.server.connections == 0
    late.close()


async def test_draining_tells_whoever_is_in_the_middle_of_a_message(core: Core) -> None:
    client = core.client()
    assert (await client.call("system.ping"))[1] is None
    whole = frame(7, "key.sign", key="v/k", input=b"x" * 4000)
    await client.send(whole[:2000])
    await core.until(lambda: core.metrics.bytes_in > 2000)
    assert await core.server.drain(3) == 0
    (reply,) = await client.read_all()
    msgid, error, result = reply
    assert (msgid, result) == (7, None)
    assert isinstance(error, list)
    assert str(error[1]).startswith("daemon.stopping: ")


async def test_draining_gives_up_in_time(core: Core) -> None:
    client = core.client()
    core.ledger.hold = True
    await client.send(frame(1, "system.ping"))
    await core.until(lambda: len(core.ledger.waiting) == 1)
    with trio.fail_after(2):
        assert await core.server.drain(0.05) == 1


async def test_a_mistake_in_one_reply_harms_nobody_else(core: Core) -> None:
    async def unpackable(_call: Call) -> Outcome:
        return Outcome(({"public": {1, 2}},))  # type: ignore[dict-item]  # that is the mistake

    core.handlers["system.info"] = unpackable
    client, other = core.client(), core.client()
    _, error, _ = await client.call("system.info")
    assert "internal" in str(error)
    assert "reply.failed" in core.logged.text()
    assert (await client.call("system.ping"))[1] is None
    assert (await other.call("system.ping"))[1] is None


async def test_a_newcomer_who_cannot_be_served_harms_nobody_else(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    old = core.client()
    await old.call("system.ping")
    with monkeypatch.context() as patch:
        patch.setattr(core.server, "_identifier", None)
        assert await core.client().read_all() == []
    assert (await old.call("system.ping"))[1] is None
    assert (await core.client().call("system.ping"))[1] is None


# --- the socket ---


def test_the_socket_has_its_mode_before_anybody_can_connect(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    mask = os.umask(0)
    os.umask(mask)
    with listen(path, 0o660, None):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    assert os.umask(mask) == mask


def test_a_dead_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listen(path, 0o600, None).close()
    with listen(path, 0o600, None):
        with pytest.raises(FileExistsError, match="another daemon"):
            listen(path, 0o600, None)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(path)  # still the first one's


def test_a_busy_daemon_is_not_taken_for_a_dead_one_and_not_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with listen(path, 0o600, None) as listener:
        listener.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first:
            first.connect(path)
            with pytest.raises(FileExistsError, match="another daemon"):
                listen(path, 0o600, None)


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_is_no_socket_stays(tmp_path: Path, what: str) -> None:
    path = tmp_path / "s"
    (tmp_path / "precious").write_text("kept")
    if what == "file":
        path.write_text("kept")
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "precious")
    with pytest.raises(FileExistsError, match="no socket"):
        listen(str(path), 0o600, None)
    assert path.is_dir() or path.read_text() == "kept"
