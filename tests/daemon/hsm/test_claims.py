"""A token that two daemons of one host use is noticed by the second, for as long as the first lives."""

from __future__ import annotations

import os

from openk_daemon.claims import Claims


def test_the_second_claim_is_told_once_and_by_whom() -> None:
    identity = os.urandom(32)
    told: list[tuple[str, int]] = []
    first = Claims(lambda name, pid: told.append((name, pid)))
    second = Claims(lambda name, pid: told.append((name, pid)))
    try:
        first.claim("main", identity)
        first.claim("main", identity)
        assert told == []
        second.claim("vendor", identity)
        second.claim("vendor", identity)
        assert told == [("vendor", os.getpid())]
        assert second.shared == {"vendor": os.getpid()}
        assert first.shared == {}
        first.close()
        second.claim("vendor", identity)
        assert second.shared == {}
    finally:
        first.close()
        second.close()


def test_other_tokens_are_no_matter() -> None:
    told: list[tuple[str, int]] = []
    claims = [Claims(lambda name, pid: told.append((name, pid))) for _ in range(2)]
    for claim in claims:
        claim.claim("main", os.urandom(32))
    assert told == []
    for claim in claims:
        claim.close()
