"""One line of the table."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """`reached` None: no goal, or nothing to compare with (then `note` says why). `ratio` is measured / baseline,
    in the direction of the goal."""

    row: str
    work: str
    measured: str
    baseline: str
    ratio: float | None
    goal: str
    reached: bool | None
    note: str = ""

    def as_map(self) -> dict[str, object]:
        return asdict(self)


def at_least(
    row: str, work: str, measured: float, baseline: float, factor: float, names: tuple[str, str], note: str = ""
) -> Result:
    """Rates a second: `measured` must be `factor` times `baseline`. `names`: the unit, and what the baseline is."""
    unit, against = names
    ratio = measured / baseline
    goal = f"≥ {factor:g} x"
    return Result(
        row, work, f"{_number(measured)} {unit}", f"{_number(baseline)} {against}", ratio, goal, ratio >= factor, note
    )


def at_most(row: str, work: str, measured: float, limit: float, texts: tuple[str, str, str], note: str = "") -> Result:
    """`texts`: measured, baseline and goal as shown."""
    shown, baseline, goal = texts
    return Result(row, work, shown, baseline, measured / limit, goal, measured <= limit, note)


def missing(row: str, work: str, goal: str, why: str) -> Result:
    """A row that cannot be measured here, and why."""
    return Result(row, work, "-", "-", None, goal, None, why)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
