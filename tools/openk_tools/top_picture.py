"""What `openk top` draws. Imports rich: only `top` imports this, when it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from openk_tools.exposition import quantile
from openk_tools.failure import clean
from openk_tools.rendering import cell, rows_of
from openk_tools.sparkline import number, seconds, shown, sparkline
from openk_tools.top import View
from openk_tools.values import Answer, Value

METHODS_SHOWN: Final = 10
STAGES: Final = ("policy", "queue", "hsm", "work", "audit")
_COLOURS: Final = {"ok": "green", "degraded": "yellow", "failed": "red", "unknown": "dim"}
_COURSES: Final = (
    "requests_per_second", "request_p99_seconds", "failed_per_second", "hsm_p99_seconds", "hsm_probe_seconds",
    "commit_p99_seconds", "locked_memory_share", "cpu_share", "disk_free_share",
)  # fmt: skip
_MILLION: Final = 1_000_000


def picture(view: View, width: int) -> RenderableType:
    """One frame."""
    parts: list[RenderableType] = [_head(view)]
    if view.trouble:
        parts.append(Text(f"  {clean(view.trouble)}", style="bold white on red"))
    parts += [_alerts(view), _beside(_methods(view), _right(view), width), _courses(view, width)]
    return Group(*parts)


def _beside(left: Table, right: RenderableType, width: int) -> RenderableType:
    if width < 100:
        return Group(left, right)
    grid = Table.grid(padding=(0, 3))
    grid.add_row(left, right)
    return grid


def _head(view: View) -> Text:
    info = _map(view.info.get("info"))
    status = str(view.health.get("status", "?"))
    now = view.now
    line = Text()
    line.append("openk top", style="bold")
    line.append(f"  openkd {clean(str(info.get('version', '?')))}  up {_span(info.get('uptime_seconds'))}  ")
    line.append(status, style=f"bold {_COLOURS.get(status, 'red')}")
    line.append(
        f"  {number(now.value('openk_connections'))} connections"
        f"  {shown(now.value('process_resident_memory_bytes'), 'B')}"
        f"  {_rate(view, 'process_cpu_seconds_total'):.0%} cpu"
        f"  {number(now.value('openk_audit_entries'))} audit entries"
        f" ({number(now.value('openk_audit_unsigned'))} unsigned)"
    )
    return line


def _alerts(view: View) -> RenderableType:
    lines: list[Text] = []
    for row in rows_of(view.alerts, "alerts"):
        if row.get("raised") is True:
            page = row.get("severity") == "page"
            lines.append(
                Text(f"  ALERT {cell(row.get('alert'))}: {cell(row.get('text'))}", style="red" if page else "yellow")
            )
    for name, found in _map(view.health.get("components")).items():
        finding = _map(found)
        state = str(finding.get("state"))
        if state not in {"ok", "unknown"}:
            lines.append(
                Text(f"  {name} {state}: {clean(str(finding.get('reason')))}", style=_COLOURS.get(state, "red"))
            )
    return Group(*lines) if lines else Text("  no alerts, all components ok", style="dim")


def _methods(view: View) -> Table:
    drawn = _table("method", "req/s", "err/s", "p50", "p99", "total")
    rows: list[tuple[float, float, str]] = []
    for method in sorted({one.labels["method"] for one in view.now.all("openk_requests_total")}):
        total = view.now.value("openk_requests_total", method=method)
        rows.append((_rate(view, "openk_requests_total", method=method), total, method))
    for rate, total, method in sorted(rows, reverse=True)[:METHODS_SHOWN]:
        fine = _rate(view, "openk_requests_total", method=method, code="ok")
        wrong = max(0.0, rate - fine)
        drawn.add_row(
            method, number(rate), Text(number(wrong), style="red" if wrong else "dim"),
            *_quantiles(view, "openk_request_seconds", method=method), number(total),
        )  # fmt: skip
    return drawn


def _right(view: View) -> RenderableType:
    stages = _table("stage", "p50", "p99")
    for stage in STAGES:
        stages.add_row(stage, *_quantiles(view, "openk_stage_seconds", stage=stage))
    stages.add_row("commit", *_quantiles(view, "openk_commit_seconds"))
    hsms = _table("hsm", "workers", "queued", "flying", "round trip", "restarts")
    for one in view.now.all("openk_hsm_up"):
        lane = one.labels.get("lane", "")
        value: Callable[[str], float] = lambda name, lane=lane: view.now.value(name, lane=lane)  # type: ignore[misc]  # noqa: E731
        hsms.add_row(
            Text(lane, style="green" if one.value else "bold red"), number(value("openk_hsm_workers")),
            number(value("openk_hsm_queued")), number(value("openk_hsm_in_flight")),
            seconds(value("openk_hsm_probe_seconds")), number(value("openk_hsm_restarts_total")),
        )  # fmt: skip
    return Group(stages, hsms)


def _courses(view: View, width: int) -> Table:
    drawn = Table.grid(padding=(0, 2))
    by_name = {str(row.get("signal")): row for row in rows_of(view.history, "signals")}
    room = max(10, width - 46)
    for name in _COURSES:
        row = by_name.get(name)
        if row is None:
            continue
        values = _parted(row.get("values"))
        unit = str(row.get("unit", ""))
        newest = next((value for value in reversed(values) if value is not None), None)
        drawn.add_row(Text(name, style="dim"), Text(sparkline(values, room), style="cyan"), shown(newest, unit, name))
    return drawn


def _table(*columns: str) -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for place, name in enumerate(columns):
        drawn.add_column(name, justify="right" if place else "left", no_wrap=True)
    return drawn


def _rate(view: View, name: str, **labels: str) -> float:
    if view.seconds <= 0:
        return 0.0
    return max(0.0, view.now.value(name, **labels) - view.before.value(name, **labels)) / view.seconds


def _quantiles(view: View, name: str, **labels: str) -> Sequence[str]:
    """Since the reading before; since the start where nothing came meanwhile."""
    now, before = view.now.buckets(name, **labels), view.before.buckets(name, **labels)
    return [seconds(quantile(now, before, share)) for share in (0.5, 0.99)]


def _parted(values: Value) -> list[float | None]:
    found = values if isinstance(values, list) else []
    return [value / _MILLION if isinstance(value, int) else None for value in found]


def _map(value: Value) -> Answer:
    return value if isinstance(value, dict) else {}


def _span(value: Value) -> str:
    if not isinstance(value, int):
        return "?"
    days, rest = divmod(value, 86_400)
    hours, minutes = rest // 3600, rest % 3600 // 60
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min {rest % 60} s"
