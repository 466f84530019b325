"""Sessions, byte by byte: the protocol's vectors, and devices that lie."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yubihsm.backends import YhsmBackend
from yubihsm.defs import COMMAND
from yubihsm.exceptions import YubiHsmConnectionError

from openk_hsm.errors import InvalidInput, Unavailable, Untrusted, WrongPin
from openk_hsm.uri import parse_uri
from openk_hsm.yubihsm.channel import Channel, LinkLost, Refused, SessionLost, send_clear
from openk_hsm.yubihsm.device import Device
from openk_hsm.yubihsm.login import Credentials
from openk_hsm.yubihsm.transport import Connector, open_transport

HOST, CARD = bytes(range(8)), bytes(range(8, 16))
CREATED = bytes.fromhex("83 0011 00") + CARD + bytes.fromhex("0d89ea51bf1bf533")
AUTHENTICATE = bytes.fromhex("04001100b01410d72022ed0ec1e620c499fbf1a9")
ECHO = bytes.fromhex("050019008c57e64f989677b72d0741b82b2cf367eb587dbb8ed7144b")
ECHOED = bytes.fromhex("8500190016dd1a9db53fef53b95b3931cfbe39f4a673092d54fb1cd3")


class Script(YhsmBackend):
    """Answers as told, and remembers what was asked."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []

    def transceive(self, msg: bytes) -> bytes:
        self.asked.append(msg)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        pass


@pytest.fixture
def known_challenge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: HOST[:size])


@pytest.fixture
def credentials() -> Credentials:
    return Credentials(1, memoryview(b"password"), asymmetric=False)


def opened(script: Script, credentials: Credentials) -> Channel:
    return Channel(script, credentials)


def test_the_protocols_vectors(known_challenge: None, credentials: Credentials) -> None:
    script = Script(CREATED, bytes.fromhex("840000"), ECHOED)
    channel = opened(script, credentials)
    assert script.asked[0] == bytes.fromhex("03000a0001") + HOST
    assert script.asked[1] == AUTHENTICATE
    assert bytes(channel.exchange(COMMAND.ECHO, (b"a", memoryview(b"bc")))) == b"abc"
    assert script.asked[2] == ECHO
    channel.close()
    credentials.close()


def test_another_password_is_found_out_before_anything_is_sent(known_challenge: None) -> None:
    script = Script(CREATED)
    with pytest.raises(WrongPin) as refused:
        Channel(script, Credentials(1, memoryview(b"passwort"), asymmetric=False))
    assert refused.value.device  # it was really tried: it latches
    assert len(script.asked) == 1


LIES: list[tuple[bytes, type[Exception]]] = [
    (b"", LinkLost),
    (b"\x85", LinkLost),
    (ECHOED[:-1], LinkLost),
    (ECHOED[:-1] + bytes([ECHOED[-1] ^ 1]), LinkLost),
    (ECHOED[:10] + bytes([ECHOED[10] ^ 1]) + ECHOED[11:], LinkLost),
    (ECHOED[:3] + b"\1" + ECHOED[4:], LinkLost),
    (b"\x84" + ECHOED[1:], LinkLost),
    (b"\x7f\0\1\x03", SessionLost),
    (b"\x7f\0\1\x04", SessionLost),
    (b"\x7f\0\1\x06", Refused),
]


@pytest.mark.parametrize(("lie", "kind"), LIES)
def test_an_answer_that_is_not_authentic_is_none(
    known_challenge: None, credentials: Credentials, lie: bytes, kind: type[Exception]
) -> None:
    channel = opened(Script(CREATED, bytes.fromhex("840000"), lie), credentials)
    with pytest.raises(kind):
        channel.exchange(COMMAND.ECHO, (b"abc",))


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60))
def test_any_frame_is_an_answer_or_a_loss(frame: bytes) -> None:
    try:
        assert send_clear(Script(frame), COMMAND.ECHO, b"x") == frame[3:]
    except (LinkLost, Refused):
        return
    assert frame[0] == 0x81


def test_a_torn_link_is_told(credentials: Credentials) -> None:
    with pytest.raises(LinkLost):
        Channel(Script(YubiHsmConnectionError("gone")), credentials)


def test_what_is_larger_than_a_message_is_refused_before_it_leaves(
    known_challenge: None, credentials: Credentials
) -> None:
    script = Script(CREATED, bytes.fromhex("840000"))
    channel = opened(script, credentials)
    with pytest.raises(InvalidInput):
        channel.exchange(COMMAND.ECHO, (bytes(4090),))
    assert len(script.asked) == 2


@pytest.mark.parametrize("answer", [b"", b"\x8a\0\0", b"\x8a\0\x41" + bytes(65), b"\x8a\0\x41\x31" + bytes(64)])
def test_a_device_without_a_good_public_key_is_not_trusted(answer: bytes) -> None:
    asymmetric = Credentials(1, memoryview(b"password"), asymmetric=True)
    ephemeral = bytes.fromhex("04") + bytes(64)
    script = Script(answer, b"\x83\0\x52\0" + ephemeral + bytes(16))
    with pytest.raises((Untrusted, LinkLost)):
        Channel(script, asymmetric)


def info(version: bytes = b"\2\4\1") -> list[bytes]:
    first = version + (7).to_bytes(4, "big") + bytes((62, 0)) + bytes(range(1, 56))
    part = b"78CLUFX5000P"
    return [b"\x86" + len(first).to_bytes(2, "big") + first, b"\x86" + len(part).to_bytes(2, "big") + part]


@pytest.mark.parametrize(
    ("answers", "kind", "says"),
    [
        ([YubiHsmConnectionError("refused")], Unavailable, "is the connector running"),
        ([b"\x86\0\2\2\4"], Unavailable, "is the connector running"),
        ([b"\x7f\0\1\1"], Unavailable, "who it is"),
        (info(b"\2\0\0"), Exception, "firmware 2.0.0; openk needs 2.1.0"),
    ],
)
def test_a_device_that_cannot_serve_says_why(answers: list[bytes], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        Device(Script(*answers))


def test_old_firmware_has_shorter_messages_and_no_asymmetric_sessions() -> None:
    assert Device(Script(*info(b"\2\3\0"))).most == 2028
    device = Device(Script(*info()))
    assert (device.most, device.serial, device.firmware) == (3116, "0000000007", "2.4.1")
    old = Device(Script(*info(b"\2\2\0")))
    with pytest.raises(Exception, match="no asymmetric sessions"):
        old.log_in(Credentials(1, memoryview(b"password"), asymmetric=True), None)


def test_usb_needs_pyusb_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "usb", None)
    monkeypatch.delitem(__import__("sys").modules, "yubihsm.backends.usb", raising=False)
    with pytest.raises(Exception, match="needs pyusb"):
        open_transport(parse_uri("yubihsm:usb:serial=12345"))


def test_a_connector_is_reached_by_its_address() -> None:
    transport = open_transport(parse_uri("yubihsm:http://[::1]:12399?auth-key=3"))
    assert isinstance(transport, Connector)
    connection = transport._connection
    assert (connection.host, connection.port) == ("::1", 12399)
