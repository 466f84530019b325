"""One run of a generated command: parameters in, call, answer out. What was read is wiped at the end."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Final, TypeAlias

import click

from openk.wire.methods import Kind, Method
from openk_tools import material, outlet, prompt
from openk_tools.held import trim, wipe
from openk_tools.outlet import Way
from openk_tools.rendering import cell, show, show_json, table
from openk_tools.session import Session
from openk_tools.settings import Settings
from openk_tools.touches import TEXTUAL, inputs_of, outlets_of, source_of, touch_of
from openk_tools.values import Answer, Value

Values: TypeAlias = str | int | bool | tuple[str, ...] | None
"""What click hands over: `from_NAME` is a file to read field NAME from, `to_NAME` one to write a result to."""

PAGE: Final = 1000
_ONE_LINE: Final = re.compile(rb"[^\n]*\n")
_WAYS: Final = "on standard input, by --from-file, or when asked"


def run(context: click.Context, method: Method, values: Mapping[str, Values]) -> None:
    """Raises Failure, click.ClickException or OSError; nothing is written to standard output then."""
    settings = context.ensure_object(Settings)
    if context.args:
        message = (
            f"`{context.command_path}` takes no value here: every user of this machine would see it. Give it {_WAYS}."
        )
        raise click.UsageError(message)
    _check(method, values, settings)
    params: Answer = {}
    answer: Answer = {}
    try:
        _gather(method, values, params)
        _confirm(method, params, values)
        with Session(settings) as session:
            answer = _fetch(session, method, params)
        present(method, answer, values, settings)
    finally:
        wipe(params, answer)


def _check(method: Method, values: Mapping[str, Values], settings: Settings) -> None:
    """Refuse before the call what could not be shown after it."""
    outlets = outlets_of(method)
    if len(outlets) < 2 or settings.as_json:
        return
    for field in outlets:
        wanted = field.required or not values.get("wrapped_only")
        if field.secret and wanted and not values.get(f"to_{field.name}"):
            others = ", --wrapped-only" if "wrapped_only" in values else ""
            message = (
                f"Say where the {field.name} goes: --{field.name}-out FILE (`-`: standard output){others} or --json."
            )
            raise click.UsageError(message)


def _gather(method: Method, values: Mapping[str, Values], params: Answer) -> None:
    """Fill `params`; the caller wipes them, whatever happens here."""
    source = source_of(method)
    for field in inputs_of(method):
        if field.kind is Kind.FIELDS:
            _gather_fields(values, params)
            continue
        given, path = values.get(field.name), values.get(f"from_{field.name}")
        if isinstance(given, str) and field.kind is Kind.BYTES and field.name in TEXTUAL:
            if path is not None:
                message = f"--{field.name} and --{field.name}-file exclude each other."
                raise click.UsageError(message)
            params[field.name] = given.encode()
        elif isinstance(path, str):
            params[field.name] = material.read(path, what=field.name)
        elif isinstance(given, str | int) and field is not source:
            params[field.name] = given
    if method.name == "secret.put":
        _gather_value(values, params)


def _gather_fields(values: Mapping[str, Values], params: Answer) -> None:
    asked, named = values.get("asked"), values.get("named")
    fields: Answer = {}
    for pair in named if isinstance(named, tuple) else ():
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            message = f"--field-file takes NAME=FILE, not {pair!r}."
            raise click.UsageError(message)
        params["fields"] = fields
        fields[name] = material.read(path, what=f"field {name}")
    for name in asked if isinstance(asked, tuple) else ():
        if "=" in name:
            message = (
                "--field takes a name only: a value on the command line would be seen by every user of this machine."
            )
            raise click.UsageError(message)
        params["fields"] = fields
        fields[name] = prompt.ask(f"Field {name}", again=False)


def _gather_value(values: Mapping[str, Values], params: Answer) -> None:
    """The value of a secret: from the file named, else (without fields) the terminal, else standard input."""
    if "fields" in params:
        if "value" in params:
            message = "A secret holds one value or a map of fields: give --from-file or fields, not both."
            raise click.UsageError(message)
        return
    if "value" not in params:
        params["value"] = prompt.ask("Value", again=True) if sys.stdin.isatty() else material.read("-", what="value")
    value = params["value"]
    if isinstance(value, memoryview):
        if values.get("trim"):
            params["value"] = trim(value)
        elif _ONE_LINE.fullmatch(value):
            click.echo("openk: note: the value ends with a line end, which is kept; --trim drops it.", err=True)


def _confirm(method: Method, params: Answer, values: Mapping[str, Values]) -> None:
    question = touch_of(method).confirm
    if question is None or values.get("yes"):
        return
    version = params.get("version")
    which = f"version {version}" if isinstance(version, int) else "with all its versions"
    if not sys.stdin.isatty():
        message = "This cannot be undone, and there is no terminal to ask on: add --yes."
        raise click.UsageError(message)
    click.confirm(question.format(**params, which=which), abort=True, err=True)


def _fetch(session: Session, method: Method, params: Answer) -> Answer:
    pages = touch_of(method).pages
    if pages is None or "limit" in params:
        return session.call(method.name, params)
    listed, named = pages
    rows: list[Value] = []
    while True:
        answer = session.call(method.name, {**params, "limit": PAGE})
        page = answer.get(listed)
        if not isinstance(page, list):
            return answer
        rows.extend(page)
        last = page[-1] if len(page) == PAGE else None
        if not isinstance(last, dict):
            return {**answer, listed: rows}
        params = {**params, "after": last[named]}


def present(method: Method, answer: Answer, values: Mapping[str, Values], settings: Settings) -> None:
    """Write `answer` as the options ask. Files first: what is printed after them has really been kept."""
    way = Way(form=str(values.get("form") or "raw"), force=bool(values.get("force")))
    rest = dict(answer)
    if isinstance(chosen := values.get("field"), str):
        rest = _one_field(rest, chosen)
    outlets = outlets_of(method)
    if method.name == "key.public" and not settings.as_json and not values.get("der"):
        rest["public"] = str(rest.get("pem", "")).encode()
    for field in outlets:
        path, value = values.get(f"to_{field.name}"), rest.get(field.name)
        if isinstance(path, str) and isinstance(value, bytes | bytearray | memoryview):
            outlet.save(path, value, secret=field.secret, way=way)
            del rest[field.name]
            rest[f"{field.name}_file"] = path
    if settings.as_json:
        show_json(rest)
    elif len(outlets) == 1:
        _present_one(method, rest, way)
    else:
        _present_rest(method, rest)


def _present_one(method: Method, rest: Answer, way: Way) -> None:
    [field] = outlets_of(method)
    value = rest.get(field.name)
    if isinstance(value, bytes | bytearray | memoryview):
        outlet.emit(value, secret=field.secret, way=way, out="--out")
    elif not rest and (done := touch_of(method).done):
        click.echo(done)
    elif isinstance(fields := rest.get("fields"), dict):
        table(("field", "value"), [(cell(name), _field_cell(part)) for name, part in fields.items()])


def _field_cell(value: Value) -> str:
    if isinstance(value, bytes | bytearray | memoryview) and not outlet.is_text(value):
        return f"({len(value)} bytes that are no text: read them with --field)"
    return cell(bytes(value).decode()) if isinstance(value, bytes | bytearray | memoryview) else cell(value)


def _one_field(rest: Answer, chosen: str) -> Answer:
    fields = rest.pop("fields", None)
    if not isinstance(fields, dict):
        message = "This secret is one value and has no fields: leave --field out."
        raise click.UsageError(message)
    if chosen not in fields:
        message = f"This secret has no field {chosen!r}; it has: {', '.join(fields)}."
        raise click.UsageError(message)
    return {**rest, "value": fields[chosen]}


def _present_rest(method: Method, rest: Answer) -> None:
    text = touch_of(method).text
    if text is not None:
        click.echo(str(rest.get(text, "")), nl=False)
        return
    files = {name: value for name, value in rest.items() if name.endswith("_file")}
    if "-" not in files.values():  # otherwise standard output belongs to the bytes alone
        show({name: value for name, value in rest.items() if name not in files})
