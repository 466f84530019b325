"""The options every command has: which socket, how long to wait, JSON or not. They may stand before or behind
the command's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.types import OptionHelpExtra


@dataclass(slots=True)
class Settings:
    """`timeout` is seconds for a whole call; `socket` None: where the SDK looks by default."""

    socket: str | None = None
    timeout: float = 30.0
    as_json: bool = False


class Number(click.Option):
    """An option whose help does not spell out the range: a number out of it is told then."""

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Put an option that was really given into the Settings that root and command share."""
    if value is None or context.resilient_parsing:
        return
    settings = context.ensure_object(Settings)
    match parameter.name, value:
        case "socket", str():
            settings.socket = value
        case "timeout", float():
            settings.timeout = value
        case "as_json", bool():
            settings.as_json = value
        case name, _:
            raise AssertionError(name)


def options(*, root: bool) -> list[click.Parameter]:
    """The options; the environment counts at the root only, so that it never beats what was typed."""
    return [
        click.Option(
            ["--socket"],
            metavar="PATH",
            expose_value=False,
            callback=_keep,
            envvar="OPENK_SOCKET" if root else None,
            type=click.Path(),
            help="The daemon's socket [OPENK_SOCKET].",
        ),
        Number(
            ["--timeout"],
            metavar="SECONDS",
            type=click.FloatRange(0.001, 86400),
            expose_value=False,
            callback=_keep,
            envvar="OPENK_TIMEOUT" if root else None,
            help="Longest wait for an answer [30; OPENK_TIMEOUT].",
        ),
        click.Option(
            ["--json", "as_json"],
            is_flag=True,
            default=None,
            expose_value=False,
            callback=_keep,
            help="Answer and errors as JSON; bytes as base64 under NAME_base64.",
        ),
    ]
