"""How a lane reaches a worker: connect, hand over the region, hear of the token. And the lane's bounds."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import trio

from openk_hsm import frames
from openk_hsm.errors import Unavailable
from openk_hsm.frames import BadFrame, Hello, Intent
from openk_hsm.link import Link
from openk_hsm.seam import TokenInfo
from openk_hsm.serving import RUN
from openk_memory.errors import LockLimitTooLow
from openk_memory.handoff import HandOff


@dataclass(frozen=True, slots=True)
class Limits:
    """All seconds, bytes or counts. Each bound is a queue that could otherwise grow for ever."""

    handoff_bytes: int = 1 << 20
    """Locked memory shared with each worker: bounds input and answer of one operation together. Counts against
    RLIMIT_MEMLOCK."""
    deadline: float = 10.0
    """A hot operation is answered by then (and the lane's next tick), whatever happens; with hsm.timeout not before."""
    generate_deadline: float = 60.0
    """A key is made by then (RSA-4096 takes seconds)."""
    hang: float = 5.0
    """A worker that works longer on one batch is killed by its own alarm."""
    open_deadline: float = 15.0
    """A worker opens its token by then."""
    breaker: float = 10.0
    """With no worker for so long, requests fail at once instead of waiting."""
    per_client: int = 1024
    total: int = 16384
    loaded_keys: int = 4096
    """Wrapped keys kept in one worker."""
    keep_alive: float = 20.0
    """A worker is asked for its health this often, busy or not: a YubiHSM ends sessions that are idle for 30 s."""
    deaths: int = 3
    """An operation is quarantined when so many workers died under it, all but the first with nothing else in flight."""
    stall: float = 2.0
    """In a group, a worker that lets a batch wait for so long gets no more while another member serves."""
    quarantine: float = 60.0
    """For so long the same client's operations of that shape are refused."""


async def dial(path: str, limits: Limits, intent: Intent = Intent.OPEN) -> Link:
    """A link to the worker that listens at `path`, with a fresh region: a worker thought dead cannot write into it.
    With the intent to seal there is none: a worker that obeys answers Sealed.

    Raises OSError when nobody listens, HsmError when the worker says why it does not serve or no memory can be locked.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    region: HandOff | None = None
    try:
        connection.connect(path)
        if intent is Intent.SEAL:
            connection.send(frames.pack_hello(Hello(0, intent, RUN)))
        else:
            region = HandOff.create(limits.handoff_bytes)
            socket.send_fds(connection, [frames.pack_hello(Hello(region.size, intent, RUN))], [region.fd])
            region.close_fd()
        with trio.fail_after(limits.open_deadline):
            await trio.lowlevel.wait_readable(connection)
        info = _understand(memoryview(connection.recv(frames.MAX_MESSAGE)))
        if region is None:
            raise BadFrame("a worker that was to seal itself serves")
    except BaseException as error:
        connection.close()
        if region is not None:
            region.close()
        if isinstance(error, trio.TooSlowError):
            late = "a worker does not open its token in time: it serves another daemon, or the device hangs"
            raise Unavailable(late) from None
        if isinstance(error, LockLimitTooLow):
            raise Unavailable(f"there is no locked memory for a worker's hand-off region: {error}") from None
        raise
    return Link(connection, region, info, limits.hang, limits.loaded_keys)


def _understand(message: memoryview) -> TokenInfo:
    if not message:
        raise ConnectionResetError(104, "the worker has gone")
    kind = bytes(message[:1])
    if kind == frames.REFUSAL:
        raise frames.unpack_error(message)[1]
    if kind != frames.READY:
        raise BadFrame("a worker did not answer the hello")
    return frames.info_from_wire(frames.unpack_body(message))
