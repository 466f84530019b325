"""One epoll for every descriptor of the hot path, served by one trio task: clients, workers, the store's bell.

    trio ──(readable)──▶ round: events ─▶ steps asked for meanwhile (hand over commits, feed workers, send replies)
                           ▲                  │
                           └── next round ◀───┘        until nothing comes for LINGER, or STAY is over

A wake-up through trio costs 20 to 40 microseconds, as much as a request; a round without it costs two.  So between
rounds the task waits here for a moment, and trio's other tasks (timers, health, threads) may be STAY late.
(docs/adr/0007-one-reactor.md)
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

import trio

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
EDGE: Final = select.EPOLLET
GONE: Final = select.EPOLLHUP | select.EPOLLERR

EVENTS: Final = 256
"""Descriptors served before the steps of this round are taken."""
LINGER: Final = 0.001
"""Seconds to wait for the next event before trio gets the thread back: the least that epoll_wait(2) can wait."""
STAY: Final = 0.002
"""Seconds after which trio's other tasks get their turn, however busy it is here."""

Ready = Callable[[int], None]


class Reactor:
    """Not for threads. What is watched is closed by its owner, who first says `forget`; whoever made it closes it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ready: dict[int, Ready] = {}
        self._steps: list[Callable[[], None]] = []
        self._turning = False
        self._rung = False
        self.watch(self._bell, self._answer_bell, READ | EDGE)

    def watch(self, fd: int, ready: Ready, events: int = READ) -> None:
        """Call `ready` with what has happened to `fd`, until `forget`. It must not raise."""
        self._epoll.register(fd, events)
        self._ready[fd] = ready

    def change(self, fd: int, events: int) -> None:
        """Which events to report from now on."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Nothing where it is not watched."""
        if self._ready.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def soon(self, step: Callable[[], None]) -> None:
        """Call `step` once, at the end of this round; the caller takes care not to ask for it twice. From outside of a
        round: as soon as trio comes to it. It must not raise."""
        self._steps.append(step)
        if not self._turning and not self._rung:
            self._rung = True
            os.eventfd_write(self._bell, 1)

    async def run(self) -> None:
        """Until cancelled or closed."""
        with suppress(trio.ClosedResourceError):
            while not self._epoll.closed:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                self._turn()

    def close(self) -> None:
        """Nothing is watched any more, and steps that are asked for are not taken. Idempotent."""
        if not self._epoll.closed:
            self._rung = True
            self._ready.clear()
            if trio.lowlevel.in_trio_run():
                trio.lowlevel.notify_closing(self._epoll.fileno())
            self._epoll.close()
            os.close(self._bell)

    def _turn(self) -> None:
        ready = self._ready
        poll = self._epoll.poll
        end = monotonic() + STAY
        self._turning = True
        try:
            while True:
                events = poll(0 if self._steps else LINGER, EVENTS)
                for fd, event in events:
                    handler = ready.get(fd)
                    if handler is not None:
                        handler(event)
                steps = self._steps
                if steps:
                    self._steps = []
                    for step in steps:
                        step()
                elif not events:
                    return
                if monotonic() >= end:
                    return
        finally:
            self._turning = False
            if self._steps:
                self._rung = True
                os.eventfd_write(self._bell, 1)

    def _answer_bell(self, _event: int) -> None:
        self._rung = False
