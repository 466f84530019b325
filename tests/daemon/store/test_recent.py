"""What is kept of the log's end is what was written there, or nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.store.recent import Recent


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12))),
    st.integers(0, 80),
    st.integers(-1, 30),
)
def test_it_reads_as_the_log_does_or_not_at_all(
    most: int, groups: list[tuple[int, int]], first: int, limit: int
) -> None:
    recent = Recent(most)
    log: list[bytes] = []
    kept = 0
    for skipped, count in groups:  # what is skipped was written by somebody else, or before
        log += [b"?"] * skipped
        fresh = [b"%d" % (len(log) + index) for index in range(count)]
        recent.add(len(log), fresh)
        log += fresh
        kept = min(most, count if skipped else kept + count)
    found = recent.read(first, limit)
    here = len(log) - kept <= first < len(log)
    assert found == (log[first : first + max(limit, 0)] if here else [])
