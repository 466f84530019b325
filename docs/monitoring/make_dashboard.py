"""Writes openk-dashboard.json with Grafana's foundation SDK, so that its schema holds: every panel and its queries in
one table. A test compares the file with what this makes, and runs each query against a Prometheus with live data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from string import ascii_uppercase
from typing import Final, cast

from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

FILE: Final = Path(__file__).with_name("openk-dashboard.json")
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${source}")
WHERE: Final = 'instance=~"$instance"'
RATE: Final = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Shown:
    """One panel. `queries`: legend to PromQL. A `stat` shows the newest number, the others a course."""

    title: str
    about: str
    unit: str
    queries: dict[str, str]
    stat: bool = False
    width: int = 8


def _quantiles(histogram: str, by: str, *, where: str = WHERE) -> dict[str, str]:
    inner = f"sum by (le, {by}) (rate({histogram}_bucket{{{where}}}[{RATE}]))"
    return {
        f"p50 {{{{{by}}}}}": f"histogram_quantile(0.5, {inner})",
        f"p99 {{{{{by}}}}}": f"histogram_quantile(0.99, {inner})",
    }


def _rate(counter: str, by: str, *, where: str = WHERE) -> dict[str, str]:
    return {f"{{{{{by}}}}}": f"sum by ({by}) (rate({counter}{{{where}}}[{RATE}]))"}


ROWS: Final[dict[str, tuple[Shown, ...]]] = {
    "At a glance": (
        Shown("Up", "Whether Prometheus reaches it.", "short", {"up": f'min(up{{job="openk", {WHERE}}})'}, stat=True, width=3),
        Shown("Health", "0 ok, 1 degraded, 2 failed: the worst component.", "short", {"worst": f"max(openk_health{{{WHERE}}})"}, stat=True, width=3),
        Shown("Alerts", "Raised by openkd itself.", "short", {"raised": f"sum(openk_alert{{{WHERE}}})"}, stat=True, width=3),
        Shown("Requests", "Answered a second.", "reqps", {"all": f"sum(rate(openk_requests_total{{{WHERE}}}[{RATE}]))"}, stat=True, width=3),
        Shown("Connections", "Open now.", "short", {"open": f"sum(openk_connections{{{WHERE}}})"}, stat=True, width=3),
        Shown("HSMs up", "Lanes that serve.", "short", {"up": f"sum(openk_hsm_up{{{WHERE}}})"}, stat=True, width=3),
        Shown("Audit entries", "In the log.", "short", {"entries": f"sum(openk_audit_entries{{{WHERE}}})"}, stat=True, width=3),
        Shown("Disk free", "Of the disk that holds the state.", "percentunit", {"free": f"min(openk_disk_free_share{{{WHERE}}})"}, stat=True, width=3),
    ),
    "Requests": (
        Shown("By method", "Requests a second.", "reqps", _rate("openk_requests_total", "method")),
        Shown("Refused and failed", "By code; all but ok.", "reqps", _rate("openk_requests_total", "code", where=f'{WHERE}, code!="ok"')),
        Shown("Latency", "From a request's last byte to its reply. Exemplars bear the request's id.", "s", _quantiles("openk_request_seconds", "method")),
        Shown("Where the time goes", "99 of 100 are below, by stage.", "s", {
            "{{stage}}": f"histogram_quantile(0.99, sum by (le, stage) (rate(openk_stage_seconds_bucket{{{WHERE}}}[{RATE}])))",
        }),
        Shown("Bytes", "From and to clients.", "Bps", {
            "received": f"sum(rate(openk_received_bytes_total{{{WHERE}}}[{RATE}]))",
            "sent": f"sum(rate(openk_sent_bytes_total{{{WHERE}}}[{RATE}]))",
        }),
        Shown("Connections", "Opened and refused a second.", "short", {
            "opened": f"sum(rate(openk_connections_opened_total{{{WHERE}}}[{RATE}]))",
            "refused": f"sum(rate(openk_connections_refused_total{{{WHERE}}}[{RATE}]))",
        }),
    ),
    "HSM": (
        Shown("Round trip", "A key wrapped, unwrapped and used, on a cadence.", "s", {"{{lane}}": f"openk_hsm_probe_seconds{{{WHERE}}}"}),
        Shown("Queue", "Operations that wait, and that are at a worker.", "short", {
            "waiting {{lane}}": f"openk_hsm_queued{{{WHERE}}}", "in flight {{lane}}": f"openk_hsm_in_flight{{{WHERE}}}",
        }),
        Shown("Batch size", "Operations a worker gets at once: the mean.", "short", {
            "{{lane}}": f"rate(openk_hsm_operations_total{{{WHERE}}}[{RATE}]) / rate(openk_hsm_batches_total{{{WHERE}}}[{RATE}])",
        }),
        Shown("Sessions", "Keys that workers' sessions hold, and workers.", "short", {
            "keys {{lane}}": f"openk_hsm_loaded_keys{{{WHERE}}}", "workers {{lane}}": f"openk_hsm_workers{{{WHERE}}}",
        }),
        Shown("Policy", "Decisions a second: those that had to be made, and those that were remembered.", "reqps", {
            "made": f"sum(rate(openk_policy_evaluated_total{{{WHERE}}}[{RATE}]))",
            "remembered": f"sum(rate(openk_policy_remembered_total{{{WHERE}}}[{RATE}]))",
        }),
        Shown("Trouble", "A second: workers replaced, operations given up or refused.", "short", {
            "restarts {{lane}}": f"rate(openk_hsm_restarts_total{{{WHERE}}}[{RATE}])",
            "timed out {{lane}}": f"rate(openk_hsm_timed_out_total{{{WHERE}}}[{RATE}])",
            "rejected {{lane}}": f"rate(openk_hsm_rejected_total{{{WHERE}}}[{RATE}])",
            "busy {{lane}}": f"rate(openk_hsm_busy_total{{{WHERE}}}[{RATE}])",
        }),
    ),
    "Store and audit": (
        Shown("Group commit", "Time, with its fsync.", "s", {
            "p50": f"histogram_quantile(0.5, sum by (le) (rate(openk_commit_seconds_bucket{{{WHERE}}}[{RATE}])))",
            "p99": f"histogram_quantile(0.99, sum by (le) (rate(openk_commit_seconds_bucket{{{WHERE}}}[{RATE}])))",
        }),
        Shown("Units in a group", "The mean: many wait together for one fsync.", "short", {
            "mean": f"sum(rate(openk_commit_units_sum{{{WHERE}}}[{RATE}])) / sum(rate(openk_commit_units_count{{{WHERE}}}[{RATE}]))",
        }),
        Shown("Unsigned", "Audit entries that no checkpoint covers yet.", "short", {"{{instance}}": f"openk_audit_unsigned{{{WHERE}}}"}),
        Shown("Audit lag", "Since every entry was under a checkpoint.", "s", {"{{instance}}": f"openk_audit_lag_seconds{{{WHERE}}}"}),
    ),
    "Upkeep": (
        Shown("Newest backup", "Its age.", "s", {"{{instance}}": f"time() - openk_backup_timestamp_seconds{{{WHERE}}}"}, width=12),
        Shown("Rotation", "Keys that are due, by rule, and those rotated in an hour.", "short", {
            "due {{rule}}": f"openk_rotation_overdue{{{WHERE}}}", "rotated {{rule}}": f"increase(openk_rotations_total{{{WHERE}}}[1h])",
        }, width=12),
    ),
    "Process": (
        Shown("CPU", "Of one CPU.", "percentunit", {"{{instance}}": f'rate(process_cpu_seconds_total{{job="openk", {WHERE}}}[{RATE}])'}),
        Shown("Memory", "Resident, and locked in use.", "bytes", {
            "resident": f'process_resident_memory_bytes{{job="openk", {WHERE}}}', "locked": f"openk_locked_memory_bytes{{{WHERE}}}",
        }),
        Shown("Threads and switches", "Context switches a second.", "short", {
            "{{kind}}": f'rate(process_context_switches_total{{job="openk", {WHERE}}}[{RATE}])',
            "threads": f'process_threads{{job="openk", {WHERE}}}',
        }),
    ),
}  # fmt: skip


def queries() -> Iterator[tuple[str, str]]:
    """Title of the panel and PromQL of each query, with the dashboard's variables in it."""
    for panels in ROWS.values():
        for shown in panels:
            for query in shown.queries.values():
                yield shown.title, query


def make() -> str:
    """The dashboard as JSON."""
    board = (
        Dashboard("openk")
        .uid("openk")
        .title("openk")
        .description("openkd: requests, HSMs, store, audit, upkeep, process. Made by docs/monitoring/make_dashboard.py.")
        .tags(["openk", "hsm"])
        .refresh("30s")
        .time("now-3h", "now")
        .readonly()
        .with_variable(DatasourceVariable("source").label("Prometheus").type("prometheus"))
        .with_variable(
            QueryVariable("instance")
            .label("openkd")
            .datasource(SOURCE)
            .query('label_values(up{job="openk"}, instance)')
            .include_all(True)
            .multi(True)
        )
    )
    numbers = count(1)
    for title, panels in ROWS.items():
        board = board.with_row(Row(title).id(next(numbers)))
        for shown in panels:
            board = board.with_panel(_panel(shown).id(next(numbers)))
    made = cast("dict[str, object]", json.loads(JSONEncoder(sort_keys=True, indent=2).encode(board.build())))
    return json.dumps(made, indent=1, sort_keys=True) + "\n"


def _panel(shown: Shown) -> Stat | Timeseries:
    panel: Stat | Timeseries = Stat() if shown.stat else Timeseries()
    panel = panel.title(shown.title).description(shown.about).unit(shown.unit).datasource(SOURCE)
    panel = panel.span(shown.width).height(4 if shown.stat else 8)
    for letter, (legend, query) in zip(ascii_uppercase, shown.queries.items(), strict=False):
        target = Dataquery().ref_id(letter).expr(query).legend_format(legend)
        panel = panel.with_target(target.exemplar("openk_request_seconds" in query))
    return panel


if __name__ == "__main__":
    FILE.write_text(make())
