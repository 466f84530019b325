"""The bucket of module reloads: bounded over any time, shared by processes, and never empty for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openk_hsm.marks import mark_path
from openk_hsm.reloads import Pace, Reloads
from tests.support.clock import Clock

URI = "pkcs11:token=t?module-path=/x"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    burst=st.integers(1, 5),
    seconds=st.floats(0.5, 10),
    pauses=st.lists(st.tuples(st.booleans(), st.floats(0, 20)), min_size=1, max_size=40),
)
def test_no_more_than_the_bucket_gives(
    tmp_path: Path, burst: int, seconds: float, pauses: list[tuple[bool, float]]
) -> None:
    """Two workers that obey: reloads in any stretch of time are the burst and one every few seconds."""
    mark_path(tmp_path, URI, "reloads").unlink(missing_ok=True)
    clock = Clock()
    workers = [Reloads(tmp_path, URI, Pace(burst, seconds), clock) for _ in range(2)]
    at: list[float] = []
    for second, pause in pauses:
        delay = workers[second].take()
        clock.now += delay
        at.append(clock.now)
        clock.now += pause
        assert delay <= seconds * (burst + 2)
    for begin in range(len(at)):
        for end in range(begin, len(at)):
            assert end - begin <= burst + (at[end] - at[begin]) / seconds + 0.001


def test_rest_fills_it_again(tmp_path: Path) -> None:
    clock = Clock()
    bucket = Reloads(tmp_path, URI, Pace(3, 2.0), clock)
    assert [bucket.take() for _ in range(3)] == [0, 0, 0]
    assert bucket.take() == pytest.approx(2.0)
    clock.now += 100
    assert [bucket.take() for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b'{"level": 1}', b'{"level": "x", "at": 1, "spent": 0}', b'{"level": 99, "at": 1, "spent": 0}',
     b'{"level": -5, "at": 9999, "spent": 0}', b"\xff\xfe", b'{"level": 0, "at": 1, "spent": 1e999}'],
)  # fmt: skip
def test_a_damaged_file_and_a_new_boot_mean_a_full_bucket(tmp_path: Path, text: bytes) -> None:
    mark_path(tmp_path, URI, "reloads").write_bytes(text)
    assert Reloads(tmp_path, URI, Pace(2, 5.0), Clock()).take() == 0


def test_a_debt_is_bounded(tmp_path: Path) -> None:
    mark_path(tmp_path, URI, "reloads").write_text('{"level": -1e9, "at": 1000, "spent": 7}')
    assert Reloads(tmp_path, URI, Pace(2, 5.0), Clock()).take() == pytest.approx(15.0)


def test_a_folder_that_cannot_be_written_paces_all_the_same(tmp_path: Path) -> None:
    assert Reloads(tmp_path / "missing", URI, Pace(2, 5.0), Clock()).take() == 5.0
