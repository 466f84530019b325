"""The table says what was measured, and no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import report
from bench.__main__ import main, parse, run
from bench.result import Result, at_least, at_most, missing
from bench.rows import ROWS


def test_goals_are_compared_in_their_direction() -> None:
    assert at_least("r", "w", 70, 100, 0.7, ("/s", "/s")).reached
    assert not at_least("r", "w", 69, 100, 0.7, ("/s", "/s")).reached
    assert at_most("r", "w", 10, 10, ("10", "-", "10")).reached
    assert not at_most("r", "w", 11, 10, ("11", "-", "10")).reached
    assert missing("r", "w", "g", "why").reached is None


def test_table_and_json_hold_every_row(tmp_path: Path) -> None:
    results = [at_least("a", "sign", 5000, 10_000, 0.7, ("/s", "/s C")), missing("b", "mac", "≥ 1", "no compiler")]
    shown = report.table(results).splitlines()
    assert shown[0].split() == ["work", "measured", "baseline", "ratio", "goal", "reached"]
    assert shown[2].split()[-1] == "NO"
    assert "5,000 /s" in shown[2]
    assert shown[-1] == "mac: no compiler"
    report.save(tmp_path / "j", results, {"rounds": 1})
    kept = json.loads((tmp_path / "j").read_text())
    assert [result["row"] for result in kept["results"]] == ["a", "b"]
    assert kept["results"][0]["ratio"] == 0.5


def test_a_row_that_fails_is_told_and_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(stage: object) -> list[Result]:
        raise RuntimeError("no daemon")

    monkeypatch.setitem(ROWS, "gcm", broken)
    failed: list[str] = []
    [result] = run("gcm", None, failed)  # type: ignore[arg-type]
    assert failed == ["gcm: RuntimeError: no daemon"]
    assert result.reached is None


def test_unknown_rows_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(["--rows", "gcm,gmc"])
    assert stopped.value.code == 2
    assert "gmc" in capsys.readouterr().err
    assert main is not None
