"""The connections of a blocking client: shared between threads, each used by one at a time."""

from __future__ import annotations

import os
import threading

from openk.link import Deadline, Link


class Pool:
    """At most `most` connections. Made when needed, kept when idle, looked at before they are used again."""

    def __init__(self, path: str, most: int) -> None:
        self.path = path
        self._most = most
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._idle: list[Link] = []
        self._count = 0
        self._changed = threading.Condition()
        self._closed = False

    def take(self, deadline: Deadline) -> Link:
        """A connection to be given back by `give` or `drop`. Waits for one where all are in use."""
        if self._process != os.getpid():
            idle = self._idle
            self._reset()  # a child of fork must not speak on its parent's connections
            for link in idle:
                link.close()
        with self._changed:
            while True:
                if self._closed:
                    raise ValueError("the client is closed")
                while self._idle:
                    link = self._idle.pop()
                    if link.quiet():
                        return link
                    link.close()
                    self._count -= 1
                if self._count < self._most:
                    self._count += 1
                    break
                self._changed.wait(deadline.remaining())
                deadline.remaining()
        try:
            return Link(self.path, deadline)
        except BaseException:
            with self._changed:
                self._count -= 1
                self._changed.notify()
            raise

    def give(self, link: Link) -> None:
        """Back, for the next one: nothing is outstanding on it."""
        with self._changed:
            if not self._closed:
                self._idle.append(link)
                self._changed.notify()
                return
        link.close()

    def drop(self, link: Link) -> None:
        """Close it."""
        link.close()
        with self._changed:
            self._count -= 1
            self._changed.notify()

    def close(self) -> None:
        """Close what is idle now, and what is in use when it is given back."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for link in idle:
            link.close()
