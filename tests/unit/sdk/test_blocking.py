"""The blocking client against daemons that behave and daemons that do not, over real sockets."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import openk
from openk.errors import Interrupted, KeyFault, RequestFault, TimedOut, Unintelligible, Unreachable, VaultFault
from openk.link import Deadline
from tests.support.fake_daemon import FakeDaemon, Refusal
from tests.unit.sdk.scripted import Peer, echo, scripted, vanish


def ping(client: openk.Client, data: bytes = b"x") -> bytes | None:
    return client.system.ping(data)


def test_calls_secrets_and_errors(tmp_path: Path) -> None:
    answers = {
        "secret.get": {"value": b"\x00\xffvalue", "version": 2, "created": "t"},
        "vault.create": Refusal(
            "vault.exists", "There is a vault payments.", retry_after=1.5, details={"vault": "payments"}
        ),
    }
    with FakeDaemon(tmp_path / "s", answers) as daemon, openk.Client(tmp_path / "s") as client:
        found = client.secret.get("payments/db", version=2)
        assert found.value == b"\x00\xffvalue"
        assert daemon.asked("secret.get") == [{"secret": "payments/db", "version": 2}]
        with pytest.raises(VaultFault) as caught:
            client.vault.create("payments")
        error = caught.value
        assert (error.code, error.message) == ("vault.exists", "There is a vault payments.")
        assert (error.request, error.retry_after, error.details) == ("0192-test", 1.5, {"vault": "payments"})
        assert client.call("secret.get", {"secret": "payments/db"}) == {
            "value": openk.Secret(b"\x00\xffvalue"), "version": 2, "created": "t",
        }  # fmt: skip


def test_the_socket_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENK_SOCKET", str(tmp_path / "socket"))
    with scripted(tmp_path, echo), openk.Client() as client:
        assert ping(client) == b"x"


def test_hello_asks_for_errors_as_maps(tmp_path: Path) -> None:
    seen: list[object] = []

    def script(peer: Peer) -> None:
        seen.append(peer.socket.recv(100))

    with (
        scripted(tmp_path, script),
        openk.Client(tmp_path / "socket", timeout=0.2) as client,
        pytest.raises(openk.Error),
    ):
        ping(client)
    assert seen == [b"\x94\x00\x01\xacsystem.hello\x91\x81\xa6errors\xa3map"]


def test_a_daemon_that_refuses_hello_is_used_all_the_same(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.socket.recv(1000)
        peer.answer(1, None, [120, "policy.denied: No policy allows this."])
        peer.take()
        peer.answer(2, {"echo": b"x"})

    with scripted(tmp_path, script), openk.Client(tmp_path / "socket") as client:
        assert ping(client) == b"x"


def test_no_daemon(tmp_path: Path) -> None:
    with openk.Client(tmp_path / "none") as client, pytest.raises(Unreachable, match="none") as caught:
        ping(client)
    assert caught.value.code == "daemon.unreachable"
    with openk.Client("x" * 300) as client, pytest.raises(Unreachable):
        ping(client)


def test_one_connection_serves_call_after_call(tmp_path: Path) -> None:
    with scripted(tmp_path, echo) as server, openk.Client(tmp_path / "socket") as client:
        assert [ping(client, b"%d" % number) for number in range(50)] == [b"%d" % number for number in range(50)]
        assert len(server.peers) == 1


def test_a_call_that_changes_nothing_is_sent_again(tmp_path: Path) -> None:
    with scripted(tmp_path, vanish, vanish, echo) as server, openk.Client(tmp_path / "socket") as client:
        assert ping(client) == b"x"
        assert [len(peer.requests) for peer in server.peers] == [1, 1, 1]


def test_but_not_for_ever(tmp_path: Path) -> None:
    with (
        scripted(tmp_path, *[vanish] * 5) as server,
        openk.Client(tmp_path / "socket") as client,
        pytest.raises(Interrupted),
    ):
        ping(client)
    assert sum(len(peer.requests) for peer in server.peers) == 3


def test_a_call_that_changes_something_is_not_sent_again(tmp_path: Path) -> None:
    with scripted(tmp_path, vanish, echo) as server, openk.Client(tmp_path / "socket") as client:
        with pytest.raises(Interrupted) as caught:
            client.key.rotate("v/k")
        assert caught.value.code == "daemon.interrupted"
        assert len(server.peers) == 1


def test_a_connection_that_went_away_while_idle_costs_nobody_an_error(tmp_path: Path) -> None:
    def once(peer: Peer) -> None:
        msgid, _, _ = peer.take()
        peer.answer(msgid, {"echo": b"x"})

    def create(peer: Peer) -> None:
        msgid, _, params = peer.take()
        peer.answer(msgid, {"vault": params["vault"], "created": "t"})

    with scripted(tmp_path, once, create) as server, openk.Client(tmp_path / "socket") as client:
        ping(client)
        while server.peers[0].socket.fileno() >= 0:
            time.sleep(0.001)
        assert client.vault.create("v").vault == "v"


def test_many_connections_that_went_away_while_idle_are_all_noticed(tmp_path: Path) -> None:
    """Each of them must not cost one of the attempts."""
    done = threading.Event()

    def hold(peer: Peer) -> None:
        peer.take()
        done.wait(5)

    with scripted(tmp_path, *[hold] * 6, echo) as server, openk.Client(tmp_path / "socket") as client:
        links = [client._pool.take(Deadline(5)) for _ in range(6)]
        for link in links:
            client._pool.give(link)
        done.set()
        for peer in server.peers:
            peer.socket.shutdown(socket.SHUT_RDWR)
        assert ping(client) == b"x"


def test_a_daemon_that_restarts_is_waited_for(tmp_path: Path) -> None:
    with scripted(tmp_path, vanish):
        client = openk.Client(tmp_path / "socket")
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(ping(client)))
        thread.start()
        time.sleep(0.1)
    (tmp_path / "socket").unlink()
    time.sleep(0.2)
    with scripted(tmp_path, echo):
        thread.join(5)
        assert found == [b"x"]
    client.close()


def test_timeout(tmp_path: Path) -> None:
    def slow(peer: Peer) -> None:
        peer.take()
        peer.socket.recv(1)

    with scripted(tmp_path, slow, slow, echo), openk.Client(tmp_path / "socket") as client:
        begun = time.monotonic()
        with pytest.raises(TimedOut) as caught:
            client.within(0.1).system.ping(b"x")
        assert caught.value.code == "daemon.timeout"
        assert "0.1 seconds" in caught.value.message
        with pytest.raises(TimedOut):
            client.within(0.1).call("system.ping")
        assert time.monotonic() - begun < 2
        assert ping(client) == b"x", "the late answer must not be taken for this one's"


def test_timeout_while_the_daemon_does_not_receive(tmp_path: Path) -> None:
    def deaf(peer: Peer) -> None:
        peer.socket.recv(1000)
        peer.answer(1, {"version": "1", "caller": {}, "limits": {"message_bytes": 1 << 24, "in_flight": 64}})
        time.sleep(0.5)

    with (
        scripted(tmp_path, deaf),
        openk.Client(tmp_path / "socket", timeout=0.2) as client,
        pytest.raises(TimedOut),
    ):
        ping(client, bytes(8 << 20))


def test_nonsense(tmp_path: Path) -> None:
    def other(peer: Peer) -> None:
        peer.socket.recv(1000)
        peer.socket.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.socket.recv(1)

    with scripted(tmp_path, other), openk.Client(tmp_path / "socket") as client, pytest.raises(Unintelligible):
        ping(client)


def test_good_answers_that_come_with_nonsense_are_answers(tmp_path: Path) -> None:
    def nonsense(peer: Peer) -> None:
        peer.answer_with_nonsense(2)

    with scripted(tmp_path, nonsense, echo), openk.Client(tmp_path / "socket") as client:
        with client.pipeline() as many:
            futures = [many.system.ping(b"x") for _ in range(2)]
        assert [future.result() for future in futures] == [b"x", b"x"]
        assert ping(client) == b"x"  # on another connection


def test_a_message_above_the_daemons_limit_is_not_sent(tmp_path: Path) -> None:
    with scripted(tmp_path, echo, echo) as server, openk.Client(tmp_path / "socket") as client:
        with pytest.raises(RequestFault) as caught:
            ping(client, bytes(1 << 16))
        assert caught.value.code == "request.too_large"
        assert ping(client) == b"x"
        assert [request[1] for peer in server.peers for request in peer.requests] == ["system.ping"]


def test_large_messages_both_ways(tmp_path: Path) -> None:
    payload = bytes(range(256)) * 200
    with scripted(tmp_path, echo), openk.Client(tmp_path / "socket") as client:
        for kind in (bytes, bytearray, memoryview):
            assert client.system.ping(kind(payload)) == payload


def test_a_full_batch_is_sent_in_more_pieces_than_one_sendmsg_takes(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        msgid, _, params = peer.take()
        items = params["items"]
        assert isinstance(items, list)
        results = [{"ciphertext": item["input"] + item["aad"], "version": 1} for item in items]
        peer.answer(msgid, {"results": results})

    with scripted(tmp_path, script), openk.Client(tmp_path / "socket") as client:
        items = [{"input": b"%d" % number, "aad": b"!"} for number in range(256)]
        found = client.key.encrypt_many("v/k", items)
        assert [one.ciphertext for one in found if not isinstance(one, openk.Error)] == [b"%d!" % n for n in range(256)]


def test_threads_share_a_client(tmp_path: Path) -> None:
    with scripted(tmp_path, *[echo] * 3) as server, openk.Client(tmp_path / "socket", connections=3) as client:
        wrong: list[bytes] = []

        def work(name: int) -> None:
            for number in range(30):
                data = b"%d-%d" % (name, number)
                if ping(client, data) != data:
                    wrong.append(data)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not wrong
        assert sum(len(peer.requests) for peer in server.peers) == 240


def test_waiting_for_a_connection_ends_with_the_timeout(tmp_path: Path) -> None:
    with scripted(tmp_path, echo), openk.Client(tmp_path / "socket", connections=1) as client:
        with client.pipeline() as many:
            many.system.ping(b"x").result()
            with pytest.raises(TimedOut):
                client.within(0.05).system.ping(b"x")
        assert ping(client) == b"x"


def test_a_child_of_fork_connects_anew(tmp_path: Path) -> None:
    with scripted(tmp_path, echo, echo) as server, openk.Client(tmp_path / "socket") as client:
        ping(client)
        ours, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            try:
                theirs.sendall(ping(client, b"child") or b"")
            finally:
                os._exit(0)
        theirs.close()
        with ours:
            assert ours.recv(10) == b"child"
        os.waitpid(child, 0)
        assert ping(client, b"parent") == b"parent"
        assert [[request[2]["echo"] for request in peer.requests] for peer in server.peers] == [
            [b"x", b"parent"],
            [b"child"],
        ]


def test_a_closed_client_says_so(tmp_path: Path) -> None:
    client = openk.Client(tmp_path / "none")
    client.close()
    with pytest.raises(ValueError, match="closed"):
        ping(client)


def test_pipeline_sends_before_answers_come(tmp_path: Path) -> None:
    def backwards(peer: Peer) -> None:
        requests = [peer.take() for _ in range(10)]
        for msgid, _, params in reversed(requests):
            peer.answer(msgid, {"echo": params["echo"]})

    with scripted(tmp_path, backwards), openk.Client(tmp_path / "socket") as client:
        with client.pipeline() as many:
            futures = [many.system.ping(b"%d" % number) for number in range(10)]
            assert futures[3].result() == b"3"
        assert [future.result() for future in futures] == [b"%d" % number for number in range(10)]


def test_pipeline_keeps_to_its_window_and_gives_the_connection_back(tmp_path: Path) -> None:
    most = 0

    def script(peer: Peer) -> None:
        nonlocal most
        peer.socket.settimeout(0.2)
        waiting: list[int] = []
        for _ in range(12):
            try:
                while True:
                    waiting.append(peer.take()[0])
            except TimeoutError:
                pass
            most = max(most, len(waiting))
            for msgid in waiting:
                peer.answer(msgid, {"echo": b"x"})
            if most and not waiting:
                break
            waiting.clear()
        peer.socket.settimeout(None)
        peer.echo()

    with scripted(tmp_path, script) as server, openk.Client(tmp_path / "socket") as client:
        with client.pipeline(window=4) as many:
            futures = [many.system.ping(b"x") for _ in range(10)]
        assert [future.result() for future in futures] == [b"x"] * 10
        assert most == 4
        assert len(server.peers) == 1


def test_pipeline_of_large_messages_does_not_block_for_ever(tmp_path: Path) -> None:
    """Both sides' buffers are full long before the last is sent: the client must receive while it sends."""
    payload = bytes(60_000)
    with scripted(tmp_path, echo), openk.Client(tmp_path / "socket", timeout=20) as client:
        with client.pipeline(window=64) as many:
            futures = [many.system.ping(payload) for _ in range(64)]
        assert all(future.result() == payload for future in futures)


def test_errors_in_a_pipeline_belong_to_their_futures(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        for error in (None, {"code": "key.unknown", "message": "No such key."}, None):
            peer.answer(peer.take()[0], None if error else {"echo": b"x"}, error)

    with scripted(tmp_path, script), openk.Client(tmp_path / "socket") as client:
        with client.pipeline() as many:
            one, two, three = (many.system.ping(b"x") for _ in range(3))
        assert one.result() == three.result() == b"x"
        for _ in range(2):
            with pytest.raises(KeyFault):
                two.result()


def test_a_pipeline_that_breaks_asks_again_for_what_changes_nothing(tmp_path: Path) -> None:
    def half(peer: Peer) -> None:
        taken = [peer.take() for _ in range(4)]
        peer.answer(taken[0][0], {"echo": b"first"})

    with scripted(tmp_path, half, echo), openk.Client(tmp_path / "socket") as client:
        with client.pipeline() as many:
            futures = [many.system.ping(b"%d" % number) for number in range(3)]
            changing = many.vault.create("v")
        assert [future.result() for future in futures] == [b"first", b"1", b"2"]
        with pytest.raises(Interrupted):
            changing.result()


def test_a_pipeline_left_by_an_exception(tmp_path: Path) -> None:
    with scripted(tmp_path, vanish, echo), openk.Client(tmp_path / "socket") as client:
        futures: list[openk.Future[bytes | None]] = []

        def fail() -> None:
            with client.pipeline() as many:
                futures.append(many.system.ping(b"x"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        with pytest.raises(Interrupted):
            futures[0].result()
        assert ping(client) == b"x"


def test_a_pipeline_times_out(tmp_path: Path) -> None:
    def slow(peer: Peer) -> None:
        peer.take()
        peer.socket.recv(100)
        peer.socket.recv(100)

    with scripted(tmp_path, slow), openk.Client(tmp_path / "socket", timeout=0.1) as client:
        with pytest.raises(TimedOut), client.pipeline() as many:
            futures = [many.system.ping(b"x"), many.system.ping(b"x")]
        for future in futures:
            with pytest.raises((TimedOut, Interrupted)):
                future.result()


def event(number: int) -> dict[str, object]:
    return {
        "number": number, "kind": "alert.raised", "at": 7, "severity": "page", "subject": "slow", "value": 2_500_000, "text": "t",
    }  # fmt: skip


def batch(cursor: str, *events: dict[str, object], lost: int = 0, restarted: bool = False) -> dict[str, object]:
    return {"events": list(events), "cursor": cursor, "lost": lost, "restarted": restarted}


def batches() -> Iterator[object]:
    """An answer a question, and the daemon gone in between."""
    yield batch("00000001:2", event(1), event(2))
    yield batch("00000001:2")
    yield batch("00000001:9", event(9), lost=6)
    yield Refusal("daemon.stopping", "It stops.")
    yield batch("00000002:1", event(1), restarted=True)


FOLLOWED = [
    ("alert.raised", 1), ("alert.raised", 2), ("events.lost", 0), ("alert.raised", 9), ("daemon.restarted", 0), ("alert.raised", 1),
]  # fmt: skip
CURSORS = [None, "00000001:2", "00000001:2", "00000001:9", "00000001:9"]


def test_events_are_followed_over_losses_and_restarts(tmp_path: Path) -> None:
    script = batches()
    with (
        FakeDaemon(tmp_path / "s", {"system.events": lambda _: next(script)}) as daemon,
        openk.Client(tmp_path / "s") as client,
    ):
        stream = client.follow()
        found = [next(stream) for _ in range(4)]
        with pytest.raises(openk.errors.Error, match="It stops"):
            next(stream)
        found += [next(stream) for _ in range(2)]
        assert [(one.kind, one.number) for one in found] == FOLLOWED
        assert (found[0].value, found[0].subject, found[2].text) == (2.5, "slow", "6 events are not kept any more")
        assert [asked.get("after") for asked in daemon.asked("system.events")] == CURSORS
        assert stream.cursor == "00000002:1"
