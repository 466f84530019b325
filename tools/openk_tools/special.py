"""Commands that are no single method: health (its exit status), methods, call, completion, version."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from typing import Final

import click

from openk.wire.methods import METHODS
from openk_tools import completion, following, material, top, watch
from openk_tools.commands import Leaf, command_of
from openk_tools.failure import Failure
from openk_tools.held import wipe
from openk_tools.rendering import from_json, listing, pairs, show, show_json, table
from openk_tools.session import Session
from openk_tools.settings import Settings
from openk_tools.values import Answer, Value

_STATUS: Final = {"ok": 0, "degraded": 1, "failed": 69}


def commands(root: click.Command) -> list[click.Command]:
    watching: list[click.Command] = [
        _health(), watch.alerts(), following.events(), watch.metrics(), top.command(),
    ]  # fmt: skip
    return [
        *watching, _seal(), _unseal(), _config(), _log(), _methods(), _call(), _completion(root), _version(),
    ]  # fmt: skip


def _leaf(name: str, callback: Callable[..., object], text: str, *params: click.Parameter) -> Leaf:
    return Leaf(name, callback=click.pass_context(callback), about=text, params=params)


def _health() -> Leaf:
    def health(context: click.Context) -> None:
        settings = context.ensure_object(Settings)
        answer: Answer
        with Session(settings) as session:
            try:
                answer = session.call("system.health", {})
            except Failure as failure:
                if failure.row.group not in {"audit", "store"}:
                    raise
                # Nothing is admitted that cannot be recorded, this question neither: that is the answer.
                found: Answer = {"state": "failed", "reason": failure.message or failure.row.meaning}
                answer = {"status": "failed", "components": {failure.row.group: found}}
        status = str(answer.get("status"))
        if settings.as_json:
            show_json(answer)
        else:
            components = answer.get("components")
            pairs({"status": status})
            if isinstance(components, dict) and components:
                listing([{"component": name, **found} for name, found in components.items() if isinstance(found, dict)])
        context.exit(_STATUS.get(status, _STATUS["failed"]))

    return _leaf("health", health, "Is all well? Exit status 0: ok, 1: degraded, 69: failed or unreachable.")


def _seal() -> Leaf:
    """`openk seal`: short, for whoever is in a hurry."""
    return command_of(METHODS["system.seal"], "seal")


def _unseal() -> Leaf:
    return command_of(METHODS["system.unseal"], "unseal")


def _config() -> click.Group:
    text = "The daemon's configuration: what is in force, and what would change."
    group = click.Group("config", help=text, no_args_is_help=True)
    group.add_command(command_of(METHODS["system.config"], "config show"))
    group.add_command(command_of(METHODS["system.config_changes"], "config diff"))
    return group


def _log() -> click.Group:
    group = click.Group("log", help="The daemon's log: how much is told.", no_args_is_help=True)
    group.add_command(command_of(METHODS["system.log_level"], "log level"))
    return group


def _methods() -> Leaf:
    def methods(context: click.Context, name: str | None) -> None:
        settings = context.ensure_object(Settings)
        with Session(settings) as session:
            found = session.call("system.methods", {}).get("methods")
        rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
        if name is not None:
            rows = [row for row in rows if row.get("name") == name]
            if not rows:
                message = f"The daemon has no method {name!r}: see `openk methods`."
                raise click.UsageError(message)
        if settings.as_json:
            show_json({"methods": [*rows]})
        elif name is not None:
            show(rows[0])
        else:
            table(("method", "what it does"), [(str(row.get("name")), str(row.get("summary"))) for row in rows])

    chosen = click.Argument(["name"], required=False)
    return _leaf("methods", methods, "The methods of the running daemon, or one of them with its parameters.", chosen)


def _call() -> Leaf:
    def call(context: click.Context, method: str, source: str | None) -> None:
        params: Answer = {}
        try:
            if source is not None:
                params = _parsed(source)
            with Session(context.ensure_object(Settings)) as session:
                answer = session.call(method, params)
            show_json(answer)
            wipe(answer)
        finally:
            wipe(params)

    text = (
        "Call any method by its name, batches (`items`) included. Parameters are one JSON object; bytes are base64 "
        "under NAME_base64. The answer is JSON."
    )
    readable = click.Path(exists=True, dir_okay=False, allow_dash=True)
    source = click.Option(["--in", "source"], metavar="FILE", type=readable, help="The parameters [none].")
    method = click.Argument(["method"], shell_complete=completion.COMPLETERS["action"])
    return _leaf("call", call, text, method, source)


def _parsed(source: str) -> Answer:
    text = material.read(source, what="parameters")
    try:
        parsed: Value = json.loads(str(text, "utf-8"))
        value = from_json(parsed)
    except (ValueError, RecursionError) as error:
        # Only where it broke, never the text: it may hold a secret.
        where = "its encoding, nesting and numbers"
        if isinstance(error, json.JSONDecodeError):
            where = f"line {error.lineno}, column {error.colno}"
        message = f"The parameters are not JSON: see {where}."
        raise click.UsageError(message) from None
    finally:
        wipe(text)
    if not isinstance(value, dict):
        message = "The parameters must be one JSON object."
        raise click.UsageError(message)
    return value


def _completion(root: click.Command) -> Leaf:
    def script(context: click.Context, shell: str) -> None:
        text = completion.script(root, shell)
        if context.ensure_object(Settings).as_json:
            show_json({"shell": shell, "script": text})
        else:
            click.echo(text)

    shell = click.Argument(["shell"], type=click.Choice(completion.SHELLS))
    return _leaf(
        "completion", script, "The completion script for your shell; it completes the names of keys, too.", shell
    )


def _version() -> Leaf:
    def version(context: click.Context) -> None:
        own = metadata.version("openkd")
        if context.ensure_object(Settings).as_json:
            show_json({"openk": own, "methods": len(METHODS)})
        else:
            click.echo(f"openk {own}")

    return _leaf("version", version, "The version of this program; `openk system info` tells the daemon's.")
