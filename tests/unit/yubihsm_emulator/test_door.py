import http.client
import json
import socket
import threading
from collections.abc import Iterator

import pytest
from yubihsm.core import YubiHsm
from yubihsm.defs import COMMAND
from yubihsm.exceptions import YubiHsmConnectionError

from tests.support.emulator import Stand
from yubihsm_emulator.door import Door

API, STATUS, FAULTS = "/connector/api", "/connector/status", "/emulator/faults"
ECHO = b"\x01\x00\x03abc"
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def door(stand: Stand) -> Iterator[Door]:
    with Door(("127.0.0.1", 0), stand.link) as opened:
        serving = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield opened
        opened.shutdown()
        serving.join()


@pytest.fixture
def client(door: Door) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(*door.address, timeout=5)
    yield connection
    connection.close()


def ask(client: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    client.request(method, path, body, OCTETS)
    reply = client.getresponse()
    return reply.status, reply.read()


def test_one_frame_in_one_frame_out_on_one_connection(client: http.client.HTTPConnection) -> None:
    client.connect()
    first = client.sock
    for _ in range(3):
        client.request("POST", API, ECHO, OCTETS)
        reply = client.getresponse()
        assert (reply.status, reply.read()) == (200, b"\x81\x00\x03abc")
        assert reply.headers["Content-Type"] == "application/octet-stream"
        assert reply.headers["Content-Length"] == "6"
    assert client.sock is first


def test_errors_of_the_device_are_good_answers(client: http.client.HTTPConnection) -> None:
    assert ask(client, "POST", API, b"\x41\x00\x00") == (200, b"\x7f\x00\x01\x01")
    assert ask(client, "POST", API, b"\x41\x00\x01") == (200, b"\x7f\x00\x01\x08")


@pytest.mark.parametrize(
    ("size", "status"), [(0, 400), (2, 400), (3, 200), (3139, 200), (3140, 400), (1 << 20, 400), (1 << 21, 400)]
)
def test_sizes_of_frames(client: http.client.HTTPConnection, size: int, status: int) -> None:
    frame = b"\x01" + ((size - 3) & 0xFFFF).to_bytes(2, "big") + bytes(size)
    client.putrequest("POST", API)
    client.putheader("Content-Length", str(size))
    client.endheaders()
    if size <= 1 << 20:
        client.send(frame[:size])
    assert client.getresponse().status == status


def test_a_body_without_length_is_refused(door: Door) -> None:
    with socket.create_connection(door.address, timeout=5) as raw:
        raw.sendall(b"POST /connector/api HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n")
        reply = b"".join(iter(lambda: raw.recv(4096), b""))
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert b"Connection: close" in reply


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", API, "POST"), ("PUT", API, "POST"), ("POST", STATUS, "GET"), ("POST", FAULTS, "GET, PUT, DELETE")],
)
def test_methods(client: http.client.HTTPConnection, method: str, path: str, allowed: str) -> None:
    client.request(method, path, ECHO if method in {"PUT", "POST"} else None)
    reply = client.getresponse()
    assert (reply.status, reply.headers["Allow"]) == (405, allowed)
    reply.read()
    assert ask(client, "POST", API, ECHO)[0] == 200


def test_other_paths(client: http.client.HTTPConnection) -> None:
    assert ask(client, "GET", "/")[0] == 404
    assert ask(client, "GET", STATUS + "?x")[0] == 200


def test_the_status_is_what_clients_parse(door: Door, client: http.client.HTTPConnection) -> None:
    status, text = ask(client, "GET", STATUS)
    told = dict(line.split("=", 1) for line in text.decode().splitlines())
    assert status == 200
    assert len(text) <= 256
    assert list(told) == ["status", "serial", "version", "pid", "address", "port"]
    assert told["status"] == "OK"
    assert told["serial"] == "0012345678"
    assert int(told["port"]) == door.address[1]


def test_expect_100_and_strange_headers(door: Door) -> None:
    with socket.create_connection(door.address, timeout=5) as raw:
        raw.sendall(
            b"POST /connector/api HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nExpect: 100-continue\r\n"
            b"YubiHSM-Session: 0011223344556677\r\nX-Request-ID: 1\r\n\r\n"
        )
        assert raw.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(ECHO)
        assert raw.recv(4096).endswith(b"\x81\x00\x03abc")


def test_faults_are_changed_over_http(stand: Stand, client: http.client.HTTPConnection) -> None:
    wanted = b'{"faults": [{"do": "reboot", "seconds": 5, "commands": ["ECHO"]}]}'
    status, text = ask(client, "PUT", FAULTS, wanted)
    assert (status, json.loads(text)["faults"][0]["done"]) == (200, 0)
    assert ask(client, "POST", API, ECHO)[0] == 500
    assert ask(client, "POST", API, ECHO)[0] == 500
    assert ask(client, "GET", STATUS)[1].startswith(b"status=NO_DEVICE\n")
    assert json.loads(ask(client, "GET", FAULTS)[1])["faults"][0]["done"] == 1
    assert json.loads(ask(client, "DELETE", FAULTS)[1]) == {"seed": 0, "faults": []}
    assert ask(client, "POST", API, ECHO)[0] == 200
    assert ask(client, "PUT", FAULTS, b'{"faults": 1}') == (400, b"`faults` must be a list\n")


def test_what_is_dropped_ends_the_connection(stand: Stand, client: http.client.HTTPConnection) -> None:
    ask(client, "PUT", FAULTS, b'{"faults": [{"do": "drop-reply"}]}')
    client.request("POST", API, ECHO, OCTETS)
    with pytest.raises(http.client.RemoteDisconnected):
        client.getresponse()


def test_the_yubihsm_package_over_http(stand: Stand, door: Door) -> None:
    hsm = YubiHsm.connect(door.url)
    with hsm.create_session_derived(1, "password") as session:
        assert session.send_secure_cmd(COMMAND.ECHO, bytes(2021)) == bytes(2021)
        stand.link._back_at = stand.clock.now + 1
        with pytest.raises(YubiHsmConnectionError):
            session.get_pseudo_random(1)
        stand.clock.now += 1
    hsm.close()


def test_connections_share_the_device_frame_by_frame(door: Door) -> None:
    failed: list[BaseException] = []

    def work(password: str) -> None:
        try:
            hsm = YubiHsm.connect(door.url)
            with hsm.create_session_derived(1, password) as session:
                for size in range(25):
                    assert session.send_secure_cmd(COMMAND.ECHO, bytes(size)) == bytes(size)
            hsm.close()
        except BaseException as error:  # noqa: BLE001 - told by the thread that asks
            failed.append(error)

    threads = [threading.Thread(target=work, args=("password",)) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(timeout=20)
    assert failed == []


def test_a_client_that_leaves_is_not_worth_a_word(door: Door, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(door.address, timeout=5) as raw:
        raw.sendall(b"POST /connector/api HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
    client = http.client.HTTPConnection(*door.address, timeout=5)
    assert ask(client, "POST", API, ECHO)[0] == 200
    client.close()
    assert capfd.readouterr() == ("", "")
