"""`openk top`: what the daemon does, live. Asks for metrics, health, alerts and history, and draws what changed."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import click

from openk_tools.commands import Leaf
from openk_tools.exposition import Exposition
from openk_tools.failure import Failure
from openk_tools.session import Session
from openk_tools.settings import Number, Settings
from openk_tools.values import Answer

if TYPE_CHECKING:
    from rich.console import Console

INTERVAL: Final = 2.0
HISTORY: Final = 10.0
"""Seconds between two looks at the history: it has a value every ten."""


def _nothing() -> Answer:
    return {}


@dataclass(slots=True)
class View:
    """What is known at one moment. `before`: the reading that rates are taken from, `seconds` earlier."""

    socket: str
    now: Exposition = field(default_factory=lambda: Exposition(""))
    before: Exposition = field(default_factory=lambda: Exposition(""))
    seconds: float = 0.0
    info: Answer = field(default_factory=_nothing)
    health: Answer = field(default_factory=_nothing)
    alerts: Answer = field(default_factory=_nothing)
    history: Answer = field(default_factory=_nothing)
    trouble: str = ""
    """Why nothing newer is known."""


class Source:
    """Asks the daemon again and again; what fails is shown and tried again."""

    def __init__(self, session: Session, socket: str) -> None:
        self._session = session
        self._at = 0.0
        self._history_at = 0.0
        self.view = View(socket)

    def refresh(self) -> View:
        view, now = self.view, time.monotonic()
        try:
            reading = Exposition(str(self._session.call("system.metrics", {}).get("text", "")))
            view.info = self._session.call("system.info", {})
            view.health = self._session.call("system.health", {})
            view.alerts = self._session.call("system.alerts", {})
            if now - self._history_at >= HISTORY or not self._history_at:
                view.history = self._session.call("system.history", {})
                self._history_at = now
        except Failure as failure:
            view.trouble = f"{failure.code}: {failure.message or failure.row.meaning}"
            return view
        view.trouble = ""
        view.before, view.now = view.now, reading
        view.seconds = now - self._at if self._at else 0.0
        self._at = now
        return view


def command() -> Leaf:
    def top(context: click.Context, interval: float, *, once: bool) -> None:
        settings = context.ensure_object(Settings)
        # Imported here: rich costs more start-up time than all the rest of the program.
        from rich.console import Console  # noqa: PLC0415

        with Session(settings) as session:
            source = Source(session, settings.socket or "")
            if once or not sys.stdout.isatty():
                _print_once(source, interval, Console())
            else:
                _live(source, interval, Console())

    return Leaf(
        "top",
        callback=click.pass_context(top),
        about="What the daemon does, live: methods, HSMs, where the time goes, alerts, the last hour. q ends it.",
        params=[
            Number(
                ["--interval"],
                type=click.FloatRange(0.2, 60),
                default=INTERVAL,
                metavar="SECONDS",
                help=f"Between two readings [{INTERVAL:g}].",
            ),
            click.Option(
                ["--once"], is_flag=True, help="Print one picture and end; so it is where there is no terminal."
            ),
        ],
    )


def _print_once(source: Source, interval: float, console: Console) -> None:
    from openk_tools.top_picture import picture  # noqa: PLC0415

    source.refresh()
    time.sleep(interval)
    view = source.refresh()
    if view.trouble:
        raise Failure(view.trouble.partition(":")[0])
    console.print(picture(view, console.width))


def _live(source: Source, interval: float, console: Console) -> None:
    from rich.live import Live  # noqa: PLC0415

    from openk_tools.top_picture import picture  # noqa: PLC0415

    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(picture(source.refresh(), console.width), refresh=True)
            if pressed(interval) in {"q", "Q", "\x1b"}:
                return


@contextmanager
def _keys() -> Generator[_Pressed]:
    """Keys as they are pressed, not shown; the terminal is put back at the end. Ctrl-C stays an interrupt."""
    if not sys.stdin.isatty():
        yield _Pressed(-1)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield _Pressed(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class _Pressed:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, seconds: float) -> str:
        """The key pressed within so long; empty when none was."""
        if self._descriptor < 0:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        return os.read(self._descriptor, 1).decode("ascii", "replace") if ready else ""
