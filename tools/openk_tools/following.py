"""`openk events` and `openk alerts --follow`: the event stream as lines, and a program run for each alert.

openkd itself may execute nothing (it is confined), so whoever wants a program run for an alert runs this command:
`openk alerts --follow --hook PROGRAM`, as a user and in a unit of its own (systemd/openk-alerts.service). It also
notices what openkd cannot: that openkd is not there.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Final

import click

from openk_tools.commands import Leaf
from openk_tools.failure import Failure, clean
from openk_tools.rendering import cell, rows_of
from openk_tools.session import Session
from openk_tools.settings import Settings
from openk_tools.values import Answer, Value

MILLION: Final = 1_000_000
WAIT: Final = 20
"""Seconds that the daemon is asked to wait for the next event."""
HOOK_SECONDS: Final = 10.0
"""What a hook program may take; then it is killed, and the next event is served."""
RETRY: Final = 2.0
"""Seconds between two tries to reach the daemon."""
GONE_AFTER: Final = 2
"""Tries in a row that fail before it is told that the daemon is not there."""
_FINAL: Final = ("policy.", "auth.", "request.")
"""Codes that asking again does not change."""


def parted(value: Value) -> float | None:
    """Millionths, as the wire has them."""
    return value / MILLION if isinstance(value, int) and not isinstance(value, bool) else None


def all_parted(values: Value) -> list[float | None]:
    return [parted(value) for value in values] if isinstance(values, list) else []


def events() -> Leaf:
    def show(context: click.Context, after: str | None, *, follow: bool) -> None:
        settings = context.ensure_object(Settings)
        reader = EventReader(settings, after)
        with Session(settings) as session:
            while reader.step(session, wait=0):
                pass
            if follow:
                reader.run(session)
        if not settings.as_json and not follow:
            click.echo(f"go on with --after {reader.cursor}", err=True)

    return Leaf(
        "events",
        callback=click.pass_context(show),
        about="What happened to the daemon as a whole: alerts, health, configuration, policies, the seal. It keeps the "
        "newest 1024 events since its start; the audit log keeps the requests.",
        params=[
            click.Option(["--follow"], is_flag=True, help="Go on with each as it happens, until interrupted."),
            click.Option(["--after"], metavar="CURSOR", help="Only what came behind an earlier run of this command."),
        ],
    )


class Reader:
    """Asks the event stream on. `cursor`: behind what was read; None: nothing was."""

    def __init__(self, settings: Settings, after: str | None, sleep: Callable[[float], None] = time.sleep) -> None:
        self.cursor: str | None = after
        self._settings = settings
        self._sleep = sleep
        self._failed = 0

    def run(self, session: Session) -> None:
        """Until interrupted, or refused for good."""
        while True:
            try:
                self.step(session, wait=0 if self._failed else self.patience)
            except Failure as failure:
                if failure.code.startswith(_FINAL):
                    raise
                self.miss(failure)
                self._sleep(RETRY)

    @property
    def patience(self) -> int:
        """Seconds to wait for an event: less than the session waits for an answer."""
        return max(1, min(WAIT, int(self._settings.timeout) - 5))

    def step(self, session: Session, wait: int) -> int:
        """One question, and how many events it brought. Raises Failure."""
        raise NotImplementedError

    def miss(self, failure: Failure) -> None:
        """The daemon did not answer."""
        del failure  # for those that tell of it
        self._failed += 1

    def _ask(self, session: Session, wait: int) -> Answer:
        asked: Answer = {}
        if self.cursor is not None:
            asked["after"] = self.cursor
        if wait:
            asked["wait"] = wait
        answer = session.call("system.events", asked)
        self.cursor = str(answer.get("cursor"))
        return answer


class EventReader(Reader):
    """Every event is a line."""

    def step(self, session: Session, wait: int) -> int:
        answer = self._ask(session, wait)
        self._failed = 0
        if answer.get("restarted"):
            click.echo("openk: openkd has started anew; these are its events since", err=True)
        if answer.get("lost"):
            click.echo(f"openk: {cell(answer.get('lost'))} events are not kept any more", err=True)
        rows = rows_of(answer, "events")
        for event in rows:
            told: Answer = {**event, "value": parted(event.get("value"))}
            if self._settings.as_json:
                click.echo(json.dumps(told))
            else:
                subject = f"{cell(event['subject'])}: " if event.get("subject") else ""
                line = f"{_day(event)}  {cell(event.get('severity')):<6}  {cell(event.get('kind')):<15}"
                click.echo(f"{line}  {subject}{cell(event.get('text'))}")
        return len(rows)

    def miss(self, failure: Failure) -> None:
        if not self._failed:
            click.echo(f"openk: {clean(str(failure))}; trying again", err=True)
        super().miss(failure)


class AlertFollower(Reader):
    """Tells of each alert once as it is raised and once as it is cleared: to standard output, and to the hook. What was
    raised before the daemon started anew and is well since, is cleared too."""

    def __init__(self, settings: Settings, hook: str | None, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(settings, None, sleep)
        self._hook = hook
        self._raised: dict[str, Answer] = {}

    def follow(self) -> None:
        """Until interrupted, or refused for good."""
        with Session(self._settings) as session:
            self.run(session)

    def step(self, session: Session, wait: int) -> int:
        if self.cursor is None:
            self._agree(session)
            self._answered()
            return 0
        answer = self._ask(session, wait)
        self._answered()
        alerts = [row for row in rows_of(answer, "events") if str(row.get("kind")).startswith("alert.")]
        for row in alerts:
            self._turn({**row, "alert": row.get("subject"), "raised": row.get("kind") == "alert.raised"})
        if answer.get("restarted") or answer.get("lost"):
            self._agree(session)
        return len(alerts)

    def miss(self, failure: Failure) -> None:
        super().miss(failure)
        if self._failed == GONE_AFTER:
            self._tell(_unreachable(raised=True, text=f"openkd does not answer: {failure.code}"))

    def _answered(self) -> None:
        if self._failed >= GONE_AFTER:
            self._tell(_unreachable(raised=False, text="openkd answers again"))
        self._failed = 0

    def _agree(self, session: Session) -> None:
        """Tell what differs between what was told and what is."""
        answer = session.call("system.alerts", {})
        rows = {str(row.get("alert")): row for row in rows_of(answer, "alerts") if row.get("raised")}
        for name in [name for name in self._raised if name not in rows]:
            self._turn({**self._raised[name], "raised": False, "at": int(time.time())})
        for row in rows.values():
            self._turn({**row, "at": row.get("since")})
        if self.cursor is None:
            self.cursor = str(answer.get("cursor"))

    def _turn(self, event: Answer) -> None:
        """Tell of it, unless it was told."""
        name = str(event.get("alert"))
        if event.get("raised") == (name in self._raised):
            return
        if event.get("raised"):
            self._raised[name] = event
        else:
            del self._raised[name]
        self._tell({**event, "value": parted(event.get("value"))})

    def _tell(self, event: Answer) -> None:
        kept = ("alert", "severity", "raised", "at", "value", "text")
        told: Answer = {name: event.get(name) for name in kept}
        if self._settings.as_json:
            click.echo(json.dumps(told))
        else:
            state = "RAISED " if told["raised"] else "cleared"
            line = f"{_clock(event)}  {state}  {cell(told['severity']):<6}  {cell(told['alert'])}"
            click.echo(f"{line}: {cell(told['text'])}")
        if self._hook is not None:
            run_hook(self._hook, told)


def _local(event: Answer) -> time.struct_time:
    at = event.get("at")
    return time.localtime(at if isinstance(at, int) else None)


def _clock(event: Answer) -> str:
    return time.strftime("%H:%M:%S", _local(event))


def _day(event: Answer) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", _local(event))


def _unreachable(*, raised: bool, text: str) -> Answer:
    at = int(time.time())
    return {"alert": "unreachable", "severity": "page", "raised": raised, "at": at, "value": None, "text": text}


def run_hook(program: str, event: Answer) -> None:
    """Run it without a shell, without arguments, with a small environment, for HOOK_SECONDS at most. What goes wrong is
    said, and changes nothing."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "OPENK_ALERT": str(event.get("alert")),
        "OPENK_ALERT_STATE": "raised" if event.get("raised") else "cleared",
        "OPENK_ALERT_SEVERITY": str(event.get("severity")),
    }
    try:
        done = subprocess.run(  # noqa: S603 - the operator named this program; nothing of the event is an argument
            [program],
            input=f"{json.dumps(event)}\n".encode(),
            env=environment,
            timeout=HOOK_SECONDS,
            check=False,
            stdout=2,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        click.echo(f"openk: the hook failed: {clean(str(error))}", err=True)
    else:
        if done.returncode:
            click.echo(f"openk: the hook ended with status {done.returncode}", err=True)
