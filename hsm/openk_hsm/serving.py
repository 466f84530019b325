"""For which request the daemon is at work, and what requests are called.

A request's count goes with every operation and call made for it, to the worker and into its log. Nobody hands it on: a
flow (openk_hsm.pending) takes it from what runs when the flow is begun, and says it again at each of its steps, so that
whatever a flow submits is known for its request's, however deep in the hierarchy.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

RUN: Final = int.from_bytes(os.urandom(4), "big")
"""This process's run: ids are unique over restarts."""
NAMED_MOST: Final = 16
"""Ids in one line about many requests: more are counted."""


class Serving:
    """`request`: the count of the request whose flow runs now; 0 while the daemon works for itself. Where many wait for
    one answer (a key that is opened once for all), it is the one that came first."""

    __slots__ = ("request",)

    def __init__(self) -> None:
        self.request = 0


SERVING: Final = Serving()


def request_id(number: int, run: int = RUN) -> str:
    """What clients, logs and the audit log call the request of that count: 32 random bits of a run, and the count."""
    return f"{run:08x}-{number:x}"


def for_requests(numbers: Iterable[int]) -> dict[str, object]:
    """What a line says of the requests that it is about: `request`, the first; where there are more, `requests` (the
    first NAMED_MOST of them) and `requests_count`. Nothing where the daemon asked for itself."""
    distinct = list(dict.fromkeys(number for number in numbers if number))
    if not distinct:
        return {}
    told: dict[str, object] = {"request": request_id(distinct[0])}
    if len(distinct) > 1:
        told["requests"] = [request_id(number) for number in distinct[:NAMED_MOST]]
        told["requests_count"] = len(distinct)
    return told
