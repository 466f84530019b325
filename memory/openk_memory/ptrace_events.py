"""Who attaches to this process as a tracer, as the kernel tells it: the process events connector (the kernel's
driver-api/connector and linux/cn_proc.h), which everybody may hear since Linux 6.6.

    nlmsghdr    16 bytes   length u32 │ type u16 = 3 │ flags u16 │ seq u32 │ port u32
    cn_msg      20 bytes   idx u32 = 1 │ val u32 = 1 │ seq u32 │ ack u32 │ length u16 │ flags u16
    proc_event  40 bytes   what u32 │ cpu u32 │ time u64 │ then, for each `what`:
        0x100, ptrace                process pid u32 │ process tgid u32 │ tracer pid u32 │ tracer tgid u32
        0, the answer to a listener  error u32

All in the host's byte order. A tracer that leaves has 0 for both of its ids; PTRACE_TRACEME is not told of.

The kernel speaks in its first network, pid and user namespaces only and is silent elsewhere. So nothing is believed
until it has answered: the answer comes the way that events come, to everybody who listens, and `ack` says whose it is.
A filter of the socket's own (BPF) lets in events of this process only: others, who may trace each other as often as
they like, neither wake it nor fill its queue.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from openk_memory.errors import Unsupported

NETLINK_CONNECTOR: Final = 11
SO_ATTACH_FILTER: Final = 26
GROUP: Final = 1
"""CN_IDX_PROC, and the group's bit in a bind(2)."""
DONE: Final = 3
LISTEN: Final = 1
EVERYTHING: Final = 0
"""Of the connector's own filter: one that lets only ptrace through holds back the answer, too."""
ANSWER: Final = 0
PTRACE: Final = 0x100
MOST: Final = 512
"""Messages read at a time: more than the queue holds (some 270, net.core.rmem_default)."""
NAMED: Final = 8
"""Tracers named at a time; the rest counts as lost."""

_WANTED: Final = (
    "a tracer that comes and goes within a tenth of a second is not noticed without the kernel's process events: they "
    "want Linux 6.6, AF_NETLINK sockets, and the host's network, pid and user namespaces"
)
_HEADER: Final = struct.Struct("=IHHII")
_MESSAGE: Final = struct.Struct("=IIIIHH")
_EVENT: Final = struct.Struct("=IIQIIII")
_REQUEST: Final = struct.Struct("=II")
_INSTRUCTION: Final = struct.Struct("=HBBI")
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_WHAT_AT: Final = _HEADER.size + _MESSAGE.size
_PROCESS_AT: Final = _WHAT_AT + 20
_LARGEST: Final = 8192


@dataclass(frozen=True, slots=True)
class Attached:
    """Process `tracer` attached to a thread of process `process`."""

    process: int
    tracer: int


@dataclass(frozen=True, slots=True)
class Answer:
    """To whoever asked with `ack` one less."""

    ack: int
    error: int
    """errno; 0: it listens."""


@dataclass(frozen=True, slots=True)
class Heard:
    tracers: tuple[int, ...] = ()
    """Process ids, each once, in the order of coming; at most `NAMED`."""
    lost: bool = False
    """There were more."""


def parse(datagram: bytes) -> Iterator[Attached | Answer]:
    """What of a datagram concerns tracers; anything else, and whatever does not keep to the format, is passed over."""
    at = 0
    while at + _HEADER.size <= len(datagram):
        length, kind, *_ = _HEADER.unpack_from(datagram, at)
        if not _HEADER.size <= length <= len(datagram) - at:
            return
        if kind == DONE:
            yield from _of_message(datagram[at + _HEADER.size : at + length])
        at += length + -length % 4


def _of_message(message: bytes) -> Iterator[Attached | Answer]:
    if len(message) < _MESSAGE.size + _EVENT.size:
        return
    idx, val, _, ack, length, _ = _MESSAGE.unpack_from(message)
    if (idx, val) != (GROUP, GROUP) or not _EVENT.size <= length <= len(message) - _MESSAGE.size:
        return
    what, _, _, first, process, _, tracer = _EVENT.unpack_from(message, _MESSAGE.size)
    if what == ANSWER:
        yield Answer(ack, first)
    elif what == PTRACE and tracer:
        yield Attached(process, tracer)


class PtraceEvents:
    """The socket. Silent until `subscribe`; it lives as long as the process, or until `close`. Not for threads."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    @property
    def channel(self) -> socket.socket | None:
        """Readable when there is something to `read`; None: nothing will ever come."""
        return self._socket

    def subscribe(self) -> str:
        """Before the process confines itself, for then it may no longer. Returns what was done. Raises Unsupported
        where the socket is refused, or the kernel does not answer on it."""
        try:
            self._socket = _open()
        except OSError as error:
            raise Unsupported(f"{error.strerror}: {_WANTED}") from None
        return "the kernel tells of each that attaches"

    def close(self) -> None:
        """Hear nothing any more. Again: nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def read(self) -> Heard:
        """Who attached to this process since the last time. Bounded, and never waits."""
        if self._socket is None:
            return Heard()
        mine = os.getpid()
        tracers: dict[int, None] = {}
        lost = False
        for _ in range(MOST):
            try:
                events = _receive(self._socket)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: the queue was full; it is told once
                lost = True
                continue
            for each in events:
                if isinstance(each, Attached) and each.process == mine:
                    tracers[each.tracer] = None
        return Heard(tuple(tracers)[:NAMED], lost or len(tracers) > NAMED)


def _open() -> socket.socket:
    """A socket on which the kernel has answered. Raises OSError, Unsupported."""
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    listening = socket.socket(socket.AF_NETLINK, kind, NETLINK_CONNECTOR)
    try:
        _admit(listening, answers=True)
        listening.bind((0, GROUP))
        _listen(listening)
        _admit(listening, answers=False)
    except BaseException:
        listening.close()
        raise
    return listening


def _receive(listening: socket.socket) -> list[Attached | Answer]:
    """One datagram's, if it comes from the kernel. Raises BlockingIOError when there is none, OSError when some were
    lost."""
    datagram, _, _, sender = listening.recvmsg(_LARGEST)
    return list(parse(datagram)) if sender[0] == 0 else []


def _listen(listening: socket.socket) -> None:
    """Ask to be told, and hear the kernel agree: it answers within the call. Raises OSError, Unsupported."""
    asked = int.from_bytes(os.urandom(3))
    request = _REQUEST.pack(LISTEN, EVERYTHING)
    message = _MESSAGE.pack(GROUP, GROUP, 0, asked, len(request), 0) + request
    listening.send(_HEADER.pack(_HEADER.size + len(message), DONE, 0, 0, 0) + message)
    for _ in range(MOST):
        try:
            events = _receive(listening)
        except BlockingIOError:
            break
        for each in events:
            if isinstance(each, Answer) and each.ack == asked + 1:
                if each.error:
                    raise OSError(each.error, os.strerror(each.error))
                return
    raise Unsupported(f"the kernel does not answer: {_WANTED}")


def _admit(listening: socket.socket, *, answers: bool) -> None:
    """Let in only ptrace events of this process and, if asked for, answers. BPF loads words as big-endian."""
    accept, refuse = 5, 6
    program = (
        (_LOAD, 0, 0, _WHAT_AT),
        (_EQUAL, accept - 2 if answers else 0, 0, socket.htonl(ANSWER)),
        (_EQUAL, 0, refuse - 3, socket.htonl(PTRACE)),
        (_LOAD, 0, 0, _PROCESS_AT),
        (_EQUAL, 0, refuse - 5, socket.htonl(os.getpid())),
        (_RETURN, 0, 0, 0xFFFFFFFF),
        (_RETURN, 0, 0, 0),
    )
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*each) for each in program))
    pointer = struct.pack("@HP", len(program), ctypes.addressof(code))  # struct sock_fprog
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)
