"""An error as HTTP tells it: problem details, application/problem+json (RFC 9457).

    {"type": "urn:openk:error:key.unknown", "title": "No such key.", "status": 404, "detail": "no key payments/card",
     "instance": "urn:openk:request:5f0c9a1e-2b", "code": "key.unknown", "number": 200, "advice": "...", "retry": false}

and, where there are any, `retry_after` (seconds) and `details`.  `title` is the code's meaning and never varies with
the occurrence (section 3.1.3); `type` is an absolute URI that need not be fetched (section 3.1.1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

from openk.wire.codes import Code
from openk.wire.writer import Detail

CONTENT_TYPE: Final = "application/problem+json"
TYPE: Final = "urn:openk:error:"
INSTANCE: Final = "urn:openk:request:"


@dataclass(frozen=True, slots=True)
class Problem:
    """What a response is made of. `headers` are complete but for Content-Length and what the door itself adds."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def problem_of(
    code: Code,
    message: str,
    *,
    request: str | None = None,
    retry_after: float | None = None,
    details: Mapping[str, Detail] | None = None,
) -> Problem:
    """`message` and `details` are what goes over the wire: sanitised before. Retry-After is whole seconds, rounded up
    (RFC 9110, 10.2.3)."""
    members: dict[str, object] = {
        "type": TYPE + code.name,
        "title": code.meaning,
        "status": code.http,
        "detail": message,
        "code": code.name,
        "number": code.number,
        "advice": code.advice,
        "retry": code.retry,
    }
    if request is not None:
        members["instance"] = INSTANCE + request
    headers = [("Content-Type", CONTENT_TYPE), ("Cache-Control", "no-store")]
    if retry_after is not None:
        members["retry_after"] = retry_after
        headers.append(("Retry-After", str(max(0, ceil(retry_after)))))
    if details:
        members["details"] = dict(details)
    return Problem(code.http, tuple(headers), json.dumps(members, separators=(",", ":")).encode())
