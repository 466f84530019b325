"""openkd scraped by a real Prometheus: what is served is accepted, the shipped rules hold and fire, every panel of the
shipped dashboard has series, and exemplars lead from a bucket to a request."""

from __future__ import annotations

import json
import runpy
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import openk
from tests.support.daemon import RunningDaemon, copy_template, running_daemon, with_backups

SHIPPED = Path(__file__).parents[2] / "docs" / "monitoring"
BOARD = runpy.run_path(str(SHIPPED / "make_dashboard.py"))
WITHIN = 25.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@dataclass
class Prometheus:
    port: int

    def ask(self, path: str, **params: str) -> object:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(params)}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def query(self, text: str) -> list[dict[str, object]]:
        found = self.ask("query", query=text)
        assert isinstance(found, dict)
        result: list[dict[str, object]] = found["result"]
        return result

    def until(self, text: str) -> list[dict[str, object]]:
        """The series of a query, once there is one."""
        end = time.monotonic() + WITHIN
        while time.monotonic() < end:
            try:
                if found := self.query(text):
                    return found
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"no series within {WITHIN} s: {text}")


@pytest.fixture(scope="module")
def scraped(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningDaemon, Prometheus]]:
    """A daemon with a little traffic, and a Prometheus with the shipped files, but a second instead of its 15."""
    folder = tmp_path_factory.mktemp("scraped")
    dev, port, own = with_backups(copy_template(template, folder / "dev")), free_port(), free_port()
    (dev / "conf.d" / "metrics.toml").write_text(
        f'[metrics]\nlisten = "127.0.0.1:{port}"\n[health]\nprobe_seconds = 1\n'
        "[rotation.yearly]\nafter_days = 365\n"
    )
    shutil.copy(SHIPPED / "openk.rules.yml", folder)
    config = (
        (SHIPPED / "prometheus.yml").read_text().replace("127.0.0.1:9464", f"127.0.0.1:{port}").replace("15s", "1s")
    )
    (folder / "prometheus.yml").write_text(config)
    command = [
        "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{own}", "--enable-feature=exemplar-storage", "--log.level=warn",
    ]  # fmt: skip
    with running_daemon(dev) as daemon, (folder / "prometheus.log").open("wb") as log:
        prometheus = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            use(daemon, seconds=5)
            yield daemon, Prometheus(own)
        finally:
            prometheus.terminate()
            prometheus.wait(10)


def use(daemon: RunningDaemon, seconds: float) -> None:
    end = time.monotonic() + seconds
    with daemon.client() as client:
        client.vault.create("v")
        client.key.create("v/k", "hmac-sha-256")
        client.key.create("v/c", "aes-256-gcm", protection="cached")
        while time.monotonic() < end:
            for _ in range(10):
                client.key.mac("v/k", b"x")
                client.key.encrypt("v/c", b"x")
            with pytest.raises(openk.Error):
                client.secret.get("v/none")
            time.sleep(0.05)


def test_it_is_scraped_as_openmetrics_without_a_complaint(scraped: tuple[RunningDaemon, Prometheus]) -> None:
    _, prometheus = scraped
    prometheus.until('up{job="openk"} == 1')
    [target] = prometheus.ask("targets", state="active")["activeTargets"]  # type: ignore[index,call-overload]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert prometheus.until('openk_requests_total{method="key.mac", code="ok"} > 10')
    assert prometheus.until('process_threads{job="openk"} > 1')


def test_exemplars_lead_to_requests(scraped: tuple[RunningDaemon, Prometheus]) -> None:
    daemon, prometheus = scraped
    prometheus.until('openk_request_seconds_count{method="key.mac"} > 10')
    now = time.time()
    found = prometheus.ask(
        "query_exemplars", query="openk_request_seconds_bucket", start=str(now - 60), end=str(now + 60)
    )
    assert isinstance(found, list)
    requests = {
        exemplar["labels"]["request"] for series in found if series["seriesLabels"]["method"] == "key.mac"
        for exemplar in series["exemplars"]
    }  # fmt: skip
    with daemon.client() as client:
        first = client.audit.tail(0, limit=1000)
    told = {str(json.loads(entry.entry).get("request")) for entry in first}
    assert requests & told


@pytest.mark.parametrize(("title", "query"), list(BOARD["queries"]()))
def test_every_panel_has_series(scraped: tuple[RunningDaemon, Prometheus], title: str, query: str) -> None:
    text = query.replace("$instance", ".+").replace("$__rate_interval", "4s")
    assert scraped[1].until(text), title


def test_the_dashboard_is_what_its_maker_makes() -> None:
    made = BOARD["make"]()
    assert (SHIPPED / "openk-dashboard.json").read_text() == made
    panels = json.loads(made)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 15
    assert sum(len(panel.get("targets", [])) for panel in panels) == len(list(BOARD["queries"]()))


def test_promtool_accepts_what_is_served_and_what_is_shipped(scraped: tuple[RunningDaemon, Prometheus]) -> None:
    daemon, _ = scraped
    with daemon.client() as client:
        text = client.system.metrics()
    for command, given in (
        (["promtool", "check", "metrics"], text),
        (["promtool", "check", "rules", str(SHIPPED / "openk.rules.yml")], ""),
        (["promtool", "check", "config", str(SHIPPED / "prometheus.yml")], ""),
    ):
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_speak_of_metrics_that_are_served(scraped: tuple[RunningDaemon, Prometheus]) -> None:
    """All are loaded, none has an error, and each metric in them has series."""
    import re  # noqa: PLC0415 - here only

    _, prometheus = scraped
    groups = prometheus.ask("rules")["groups"]  # type: ignore[index,call-overload]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 15
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
    named = {name for rule in rules for name in re.findall(r"\b(?:openk|process)_[a-z_]+", rule["query"])}
    for name in named:
        assert prometheus.until(f'{{__name__="{name}"}}'), name


def test_a_rule_fires_for_what_openkd_raises_by_itself(scraped: tuple[RunningDaemon, Prometheus]) -> None:
    """Last in this file: it seals the daemon."""
    daemon, prometheus = scraped
    with daemon.client() as client:
        client.system.seal("to see the alert")
        try:
            prometheus.until('ALERTS{alertname="OpenkSealed", alertstate="firing"}')
            prometheus.until('ALERTS{alertname="OpenkRaised", alert="sealed", severity="page"}')
        finally:
            client.system.unseal()
