"""What the ledger puts into a record: time and writes."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.audit.entries import Stamp, tell_writes
from openk_daemon.store.seam import Write

FACTS = st.dictionaries(st.text(min_size=1), st.text() | st.integers(), min_size=1).map(json.dumps)


@given(FACTS, st.lists(st.tuples(st.text(max_size=9), st.binary(), st.integers(0, 99), st.none() | st.binary())))
def test_a_record_stays_json_and_says_what_was_written(
    entry: str, drawn: list[tuple[str, bytes, int, bytes | None]]
) -> None:
    writes = [Write(*each) for each in drawn]
    told = json.loads(Stamp(lambda: 1_767_323_045_678_901_234).stamp(tell_writes(entry, writes)))
    assert next(iter(told)) == "time"
    assert told["writes"] == [
        {
            "kind": write.kind,
            "id": write.id.hex(),
            "version": write.expected + 1,
            "sha256": None if write.body is None else sha256(write.body).hexdigest(),
        }
        for write in writes
    ]
    assert set(json.loads(entry)) - {"time", "writes"} <= set(told)


def test_the_time_is_utc_with_microseconds() -> None:
    stamped = Stamp(lambda: 1_767_323_045_000_901_234).stamp('{"a":1}')
    assert stamped == '{"time":"2026-01-02T03:04:05.000901Z","a":1}'


@given(st.lists(st.integers(1_700_000_000_000_000_000, 1_700_000_002_000_000_000), min_size=2))
def test_times_only_grow_whatever_the_clock_does(moments: list[int]) -> None:
    clock = iter(moments)
    stamp = Stamp(lambda: next(clock))
    times = [json.loads(stamp.stamp('{"a":1}'))["time"] for _ in moments]
    assert times == sorted(set(times))


def test_times_go_on_after_the_newest_entry() -> None:
    first = Stamp(lambda: 2_000_000_000_123_456_789).stamp('{"a":1}')
    stamp = Stamp(lambda: 1_000_000_000_000_000_000)
    stamp.continue_after(first.encode())
    assert stamp.stamp('{"a":1}') == '{"time":"2033-05-18T03:33:20.123457Z","a":1}'


@pytest.mark.parametrize("entry", [b"", b"{}", b"[]", b"7", b'{"time":7}', b'{"time":"yesterday"}', b"\xff", b"[" * 65_000, b"7" * 5000])
def test_an_entry_without_a_time_is_refused(entry: bytes) -> None:
    with pytest.raises(ValueError):
        Stamp().continue_after(entry)
