"""`openk hsm`: what the generated commands would show, said so that a person sees at once what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import click

from openk.wire.methods import HSM_CHECKS, METHODS
from openk_tools import completion, outlet
from openk_tools.commands import Leaf
from openk_tools.failure import clean
from openk_tools.hsm_bench import bench
from openk_tools.outlet import Way
from openk_tools.rendering import cell, pairs, rows_of, show_json, table
from openk_tools.session import Session
from openk_tools.settings import Number, Settings
from openk_tools.values import Answer

_PASSING: Final = frozenset({"starting", "restarting"})
_DEGRADED: Final = 1
_FAILED: Final = 69
"""EX_UNAVAILABLE, as `openk health` has it."""
_KEPT: Final = ("hsm", "backend", "label", "model", "serial", "firmware", "identity")


def hsm_argument() -> click.Argument:
    return click.Argument(["hsm"], required=False, shell_complete=completion.COMPLETERS["hsm"])


def _leaf(name: str, callback: Callable[..., object], about: str, *params: click.Parameter) -> Leaf:
    answers = METHODS[f"hsm.{name}"].result
    return Leaf(f"hsm {name}", callback=click.pass_context(callback), about=about, params=params, answers=answers)


def _asked(**given: str | int | None) -> Answer:
    return {name: value for name, value in given.items() if value is not None}


# --- list, info, status ---


def _list() -> Leaf:
    def list_hsms(context: click.Context) -> None:
        settings = context.ensure_object(Settings)
        with Session(settings) as session:
            answer = session.call("hsm.list", {})
        if settings.as_json:
            show_json(answer)
            return
        rows = rows_of(answer, "hsms")
        rest = ("backend", "label", "model", "serial", "firmware")
        shown = [[*_head(row), *(cell(row.get(name)) for name in rest)] for row in rows]
        table((*_HEAD, *rest), shown)

    return _leaf("list", list_hsms, "List the HSMs with the token of each.")


_HEAD: Final = ("hsm", "state", "workers")


def _head(row: Answer) -> list[str]:
    """A member stands below its group."""
    member = "" if row.get("group") is None else "  "
    return [f"{member}{cell(row.get('hsm'))}", cell(row.get("state")), _workers(row)]


def _workers(row: Answer) -> str:
    return f"{cell(row.get('workers'))} of {cell(row.get('configured'))}"


def _info() -> Leaf:
    def info(context: click.Context, hsm: str | None) -> None:
        settings = context.ensure_object(Settings)
        with Session(settings) as session:
            answer = session.call("hsm.info", _asked(hsm=hsm))
        if settings.as_json:
            show_json(answer)
            return
        pairs({name: answer.get(name) for name in _KEPT})
        chosen = answer.get("chosen")
        if isinstance(chosen, dict) and chosen:
            click.echo("chosen:")
            pairs(chosen, indent="  ")
        pairs({"mechanisms": answer.get("mechanisms"), "missing": answer.get("missing")})
        click.echo("keys:")
        columns = ("algorithm", "purpose", "resident", "wrapped", "cached")
        table(columns, [[cell(row.get(name)) for name in columns] for row in rows_of(answer, "keys")], "  ")

    text = (
        "What the token is and can do. It was probed: what stands here works, whatever its manual says. The table "
        "tells for each key which protections are possible on it."
    )
    return _leaf("info", info, text, hsm_argument())


def _status() -> Leaf:
    def status(context: click.Context, hsm: str | None) -> None:
        settings = context.ensure_object(Settings)
        with Session(settings) as session:
            answer = session.call("hsm.status", _asked(hsm=hsm))
        rows = rows_of(answer, "hsms")
        if settings.as_json:
            show_json(answer)
        else:
            _show_status(rows)
        context.exit(max((_judge(row) for row in rows), default=_FAILED))

    text = (
        "How the HSMs are, and what to do next. `starting` and `restarting`: requests wait for a worker. `down`: they "
        "are refused at once. `latched`: the token refused the PIN, which is not tried again. "
        "Exit status 0: all is well, 1: degraded, 69: an HSM refuses requests."
    )
    return _leaf("status", status, text, hsm_argument())


_WAITING: Final = ("queued", "in_flight")
_TOLD: Final = ("restarts", "replayed", "quarantined", "timed_out", "busy", "rejected", "trips")
"""Counts that say something only where they are not 0."""


def _show_status(rows: Sequence[Answer]) -> None:
    told = [name for name in _TOLD if any(row.get(name) for row in rows)]
    counts = (*_WAITING, *told)
    columns = (*_HEAD, *(name.replace("_", " ") for name in counts))
    table(columns, [[*_head(row), *(cell(row.get(name)) for name in counts)] for row in rows])
    for row in rows:
        advice, wait = row.get("advice"), row.get("retry_after")
        again = f" (clients are told to ask again after {wait / 1000:g} s)" if isinstance(wait, int) else ""
        if advice:
            click.echo(f"{cell(row.get('hsm'))}: {cell(advice)}{again}")


def _judge(row: Answer) -> int:
    state = row.get("state")
    if state == "up":
        return 0 if row.get("workers") == row.get("configured") else _DEGRADED
    # Where a member refuses requests, the others of its group serve: the group's own row says whether any does.
    return _DEGRADED if state in _PASSING or row.get("group") is not None else _FAILED


# --- objects ---


def _objects() -> Leaf:
    def objects(context: click.Context, hsm: str | None) -> None:
        settings = context.ensure_object(Settings)
        with Session(settings) as session:
            answer = session.call("hsm.objects", _asked(hsm=hsm))
        if settings.as_json:
            show_json(answer)
        else:
            _show_objects(answer)
        context.exit(_DEGRADED if any(answer.get(state) for state in ("unknown", "missing", "doubled")) else 0)

    text = (
        "Who owns which object of the token. `unknown`: openk did not make it and leaves it "
        "alone. `missing`: a key whose object has gone, so it cannot be used. `doubled`: two objects under one name, "
        "of which openk uses neither. Exit status 0: each is known and there, 1: not so."
    )
    return _leaf("objects", objects, text, hsm_argument())


_COUNTED: Final = {
    "unknown": "not made by openk; whoever else uses this token can say what for",
    "missing": "cannot be used any more; restore the token from its backup",
    "doubled": "of two objects of one name openk uses neither; see `hsm.untrusted` in docs/operations.md",
}


def _show_objects(answer: Answer) -> None:
    rows = rows_of(answer, "objects")
    columns = ("state", "role", "name", "version", "kind", "algorithm", "label")
    table(columns, [[cell(row.get(name) or None) for name in columns] for row in rows])
    counts = {state: answer.get(state) for state in _COUNTED}
    trouble = [f"{cell(count)} {state}: {_COUNTED[state]}" for state, count in counts.items() if count]
    for line in trouble:
        click.echo(line)
    keys = answer.get("keys")
    looked = f"{cell(keys)} {'key' if keys == 1 else 'keys'} looked at"
    if answer.get("complete") is False:
        looked += "; there are more, so some objects have no name here and some that are missing are not told"
    click.echo(looked if trouble else f"all are known and there; {looked}")


# --- selftest ---


def _selftest() -> Leaf:
    def selftest(context: click.Context, hsm: str | None, check: str | None) -> None:
        settings = context.ensure_object(Settings)
        names = HSM_CHECKS if check is None else (check,)
        done: list[Answer] = []
        with Session(settings) as session:
            where = ""
            for name in names:  # one request each: what is slow shows its progress, and holds nobody up
                answer = session.call("hsm.selftest", _asked(hsm=hsm, check=name))
                where = str(answer.get("hsm"))
                for row in rows_of(answer, "checks"):
                    done.append(row)
                    if not settings.as_json:
                        _show_check(row)
        failed = sum(row.get("outcome") == "failed" for row in done)
        if settings.as_json:
            show_json({"hsm": where, "passed": not failed, "checks": [*done]})
        else:
            click.echo(_verdict(where, done, failed))
        context.exit(_DEGRADED if failed else 0)

    text = (
        "Test an HSM by known answers. The tests go through the daemon, the worker and the device. They make keys of "
        "their own, which are gone when they end; nothing stays on the token. "
        "Exit status 0: no check failed, 1: one did."
    )
    only = click.Option(["--check"], type=click.Choice(HSM_CHECKS), metavar="CHECK",
                        help=f"Only this one: {', '.join(HSM_CHECKS)}.")  # fmt: skip
    return _leaf("selftest", selftest, text, hsm_argument(), only)


def _show_check(row: Answer) -> None:
    took = row.get("microseconds")
    milliseconds = f"{took / 1000:.1f} ms" if isinstance(took, int) else "-"
    name, outcome = cell(row.get("check")), cell(row.get("outcome"))
    click.echo(f"{name:<{max(map(len, HSM_CHECKS))}}  {outcome:<11}  {milliseconds:>10}  {cell(row.get('text'))}")


def _verdict(where: str, done: Sequence[Answer], failed: int) -> str:
    if failed:
        return f"{clean(where)}: {failed} of {len(done)} checks failed: use this HSM for nothing before you know why"
    skipped = sum(row.get("outcome") == "unsupported" for row in done)
    rest = f", {skipped} not possible on this token" if skipped else ""
    return f"{clean(where)}: {len(done) - skipped} checks passed{rest}"


# --- attest ---


def _attest() -> Leaf:
    def attest(context: click.Context, key: str, version: int | None, out: str | None) -> None:
        settings = context.ensure_object(Settings)
        with Session(settings) as session:
            answer = session.call("hsm.attest", _asked(key=key, version=version))
        pem = str(answer.get("pem", "")).encode()
        if out is not None:
            outlet.save(out, pem, secret=False, way=Way())
            answer = {name: value for name, value in answer.items() if name != "pem"} | {"pem_file": out}
        if settings.as_json:
            show_json(answer)
        elif out is None:
            outlet.emit(pem, secret=False, way=Way(), out="--out")

    params = (
        click.Argument(["key"], shell_complete=completion.COMPLETERS["key"]),
        Number(["--version"], type=click.IntRange(0), metavar="N", help="Key version; the newest when left out."),
        click.Option(
            ["--out"],
            metavar="FILE",
            type=click.Path(dir_okay=False, allow_dash=True),
            help="The certificates, PEM: into this file [standard output].",
        ),
    )
    text = (
        "Certificates by which a device vouches for a key. They say that a resident key was made in it and cannot "
        "leave it; the key's own comes first. Compare its public key with `openk key public`, and verify the chain up "
        "to the maker's root certificate, which must come from the maker. PKCS#11 tokens do not vouch for keys."
    )
    return _leaf("attest", attest, text, *params)


COMMANDS: Final = (_list(), _info(), _status(), _objects(), _selftest(), _attest(), bench(hsm_argument()))
