"""What the HSM's package reads: URIs, what a worker says, the files that keep a device's log."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import cache
from urllib.parse import quote

from openk_hsm import errors, frames
from openk_hsm.errors import HsmError
from openk_hsm.fair_queue import FairQueue
from openk_hsm.frames import BadFrame, Call, Hello
from openk_hsm.link import Cold, Link
from openk_hsm.roots import ROOT_MAC
from openk_hsm.seam import Mechanism, OpCode, Operation, Replay, TokenInfo
from openk_hsm.software import SoftwareBackend
from openk_hsm.uri import BadUri, parse_uri
from openk_hsm.yubihsm.entries import ENTRY, ROW
from openk_hsm.yubihsm.log import DeviceLog
from openk_memory.handoff import HandOff
from tests.fuzz.scratch import scratch
from tests.fuzz.target import Target

_REGION = 64 << 10
_PIN = re.compile(r"\b(pin-value|pin-source)=.*", re.DOTALL)
_CANARY = "A-PIN-TO-LOOK-FOR"


def run_uri(data: bytes) -> None:
    """A URI that is taken means the same when its attributes are written out again; a PIN is never repeated."""
    text = _PIN.sub(rf"\1={_CANARY}", data.decode("utf-8", "surrogateescape"))
    try:
        uri = parse_uri(text)
    except BadUri as error:
        assert _CANARY not in str(error)  # noqa: PT017 - only where there was one
        return
    assert _CANARY not in repr(uri)
    assert uri.scheme in {"pkcs11", "software", "yubihsm"}
    assert "\0" not in repr(uri.path)
    if uri.scheme == "pkcs11":
        attributes = ";".join(f"{name}={quote(value, safe='')}" for name, value in uri.path.items())
        more = f"&x-initialise={quote(uri.initialise, safe='')}" if uri.initialise else ""
        again = parse_uri(f"pkcs11:{attributes}?module-path={quote(uri.module, safe='/')}{more}")
        assert (again.path, again.module, again.initialise) == (uri.path, uri.module, uri.initialise)


def _uris() -> Iterator[bytes]:
    yield b"pkcs11:token=my%20token;serial=00ff;slot-id=12?module-path=/usr/lib/softhsm/libsofthsm2.so"
    yield b"pkcs11:manufacturer=a;model=b;library-version=1.2;module-path=/x.so?x-initialise=configdir%3D%27a%27"
    yield b"pkcs11:token=x?module-name=softhsm2"
    yield b"pkcs11:token=x?module-path=/x&pin-value=12345678"
    yield b"software:state=/var/tmp/keys"
    yield b"yubihsm:http://[::1]:12345/?auth-key=2&authentication=asymmetric&domain=3"
    yield b"yubihsm:usb:serial=0012345678?auth-key=65534&device-key=" + b"0f" * 32


@cache
def _info() -> TokenInfo:
    return SoftwareBackend(allow=True).open(memoryview(bytearray(64)), 0, lambda: memoryview(b""))


def _messages() -> Iterator[bytes]:
    """What a worker says, and a daemon."""
    yield frames.pack_hello(Hello(_REGION, run=7))
    yield frames.pack_hello(Hello(0, frames.Intent.SEAL))
    yield frames.pack_call(Call(256, "load_wrapped", (3, ["aes-256-gcm", "encrypt"], 1, 2, b"c", b"blob"), 24), 5000)
    yield frames.pack_body(frames.READY, frames.info_to_wire(_info()))
    for seq in (0, 256, 512, 513):
        yield frames.pack_error(frames.ERROR, seq, errors.Busy("busy", device="CKR_X", retry_after=1.5))
        yield frames.pack_body(frames.RESULT, [seq, [["label", b"id", "secret", "aes"]]])
        yield frames.HEADER.pack(frames.ANSWERS, 0, 2, 0) + frames.ROW.pack(seq, 16) + frames.ROW.pack(seq + 1, 32)
    yield frames.pack_error(frames.REFUSAL, 0, errors.WrongPin("no"))
    yield frames.pack_body(frames.RESULT, [1, [[1, 2, True, "notice"]]])
    yield frames.pack_body(frames.RESULT, [1, [b"blob", None]])
    yield frames.pack_body(frames.RESULT, [1, [b"certificate", b"certificate"]])


_READERS: tuple[Callable[[memoryview], object], ...] = (
    frames.unpack_hello,
    frames.unpack_call,
    frames.unpack_body,
    frames.unpack_error,
    frames.unpack_result,
)
_VALUES: tuple[Callable[[object], object], ...] = (
    frames.spec_from_wire,
    frames.info_from_wire,
    frames.generated_from_wire,
    frames.objects_from_wire,
    frames.certificates_from_wire,
    frames.notices_from_wire,
)


def run_frames(data: bytes) -> None:
    """BadFrame, or a value; a token's description that is taken comes back from its own packing."""
    message = memoryview(data)
    for read in _READERS:
        with suppress(BadFrame):
            read(message)
    with suppress(BadFrame):
        body = frames.unpack_body(message)
        for value in (body, *(body if isinstance(body, list) else ())):
            for convert in _VALUES:
                with suppress(BadFrame):
                    found = convert(value)
                    if isinstance(found, TokenInfo):
                        assert frames.info_from_wire(frames.info_to_wire(found)) == found


def run_link(data: bytes) -> None:
    """A worker gone mad, in one to several messages, each behind its length (u16): the lane gives it up with a typed
    error; nothing is answered twice, and what it says never leaves the room there is for an answer."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    link = Link(ours, HandOff.create(_REGION), _info(), 5.0, 100)
    with closing(theirs):
        into = memoryview(bytearray(16))
        queue = FairQueue(100, 100)
        operations = [
            Operation(OpCode.RANDOM, 16, client=1),
            Operation(OpCode.MAC, 32, ROOT_MAC, Mechanism.HMAC_SHA_256, b"q", client=1),
            Operation(OpCode.RANDOM, 16, into=into, client=1),
        ]
        for operation in operations:
            queue.push(operation)
        link.send_batch(queue, 0.0)
        cold = Cold("objects", (), Replay.PURE, 0.0, 1.0)
        link.send_cold(cold, 0.0)
        while data:
            size = 2 + int.from_bytes(data[:2], "big")
            message, data = data[2:size], data[size:]
            if not message:
                continue
            theirs.send(message)
            try:
                link.receive()
            except (HsmError, ConnectionError):
                break
        left, waiting = link.close()
        for operation in operations:
            done = operation.pending.settled
            assert done != any(operation is one for one in left)
            if done:
                with suppress(HsmError):
                    answer = operation.pending.result()
                    assert (answer if isinstance(answer, int) else len(answer)) <= operation.room
        assert cold.pending.settled != (cold in waiting)


def _conversations() -> Iterator[bytes]:
    said = list(_messages())
    for message in said:
        yield len(message).to_bytes(2, "big") + message
    yield b"".join(len(message).to_bytes(2, "big") + message for message in said[4:9])


def run_device_log(data: bytes) -> None:
    """Three files after whatever happened to the disk: lengths u16 of the first two, then all three."""
    folder = scratch("device-log")
    first, second = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
    rest = data[4:]
    parts = {"log": rest[:first], "sent": rest[first : first + second], "notices": rest[first + second :]}
    for kind, content in parts.items():
        (folder / f"yubihsm-1.{kind}").write_bytes(content)
    log = DeviceLog(folder, "1", 1)
    with closing(log):
        log.learn(frozenset({0x53}))
        log.take(0, 0, [log.last] if log.last else [])


def _device_logs() -> Iterator[bytes]:
    entry = ENTRY.pack(7, 0x53, 10, 1, 2, 0xFFFF, 0xD3, 99, bytes(16))
    row = ROW.pack(0x53, 10, 1, 2, 0xFFFF)
    notice = json.dumps({"number": 1, "at": 1767323045, "alarm": True, "text": "a stranger"}).encode() + b"\n"
    for log, sent, notices in ((entry * 2, row * 3, notice), (b"", b"", b""), (entry[:20], row, notice[:9])):
        yield len(log).to_bytes(2, "big") + len(sent).to_bytes(2, "big") + log + sent + notices


_URI = tuple(
    word.encode()
    for word in (
        "pkcs11:", "yubihsm:", "software:", "token=", "serial=", "slot-id=", "manufacturer=", "model=", "module-path=/",
        "module-name=", "x-initialise=", "pin-value=", "pin-source=", "http://", "usb:", "auth-key=", "domain=", "%00",
        "%ff", "%25", "authentication=", "device-key=", "state=", "hang=", "pin=",
    )
)  # fmt: skip
_KINDS = (b"H\x02", b"B\0", b"C\0", b"A\0", b"R\0", b"X\0", b"I\0", b"E\0", b"\xc7", b"\xd6\xff", b"\x93", b"\x92")

TARGETS = (
    Target("uri", run_uri, _uris, _URI, 300, 12000),
    Target("frames", run_frames, _messages, (*_KINDS, b"resident", b"wrapped", b"chosen", b"data"), 600, 4000),
    Target("link", run_link, _conversations, _KINDS, 400, 800),
    Target("device-log", run_device_log, _device_logs, (b'"number"', b'"at"', b"Infinity", b"[[[["), 300, 1500),
)
