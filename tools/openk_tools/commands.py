"""Makes the click command of a method from its row in the method table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import click

from openk.wire.methods import Field, Kind, Method
from openk_tools import completion
from openk_tools.examples import EXAMPLES
from openk_tools.invocation import Values, run
from openk_tools.settings import Number, options
from openk_tools.touches import TEXTUAL, inputs_of, outlets_of, source_of, touch_of, words_of

_FILE: Final = click.Path(dir_okay=False, allow_dash=True)
_READABLE: Final = click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True)


class Leaf(click.Command):
    """A command that takes the options every command has; under its help it shows what it answers, and examples.

    `path` is `NOUN VERB`, or the name of a command without a noun.
    """

    def __init__(
        self,
        path: str,
        *,
        callback: Callable[..., object],
        about: str,
        params: Sequence[click.Parameter] = (),
        answers: Sequence[Field] = (),
    ) -> None:
        self.examples = EXAMPLES.get(path, ())
        self.answers = tuple(answers)
        super().__init__(
            path.rpartition(" ")[2],
            callback=callback,
            help=about,
            short_help=_first_sentence(about),
            params=[*params, *options(root=False)],
            context_settings={"max_content_width": 100},
        )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        if self.answers:
            with formatter.section("Answer"):
                formatter.write_dl([(field.name, field.summary) for field in self.answers])
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


def command_of(method: Method, path: str | None = None) -> Leaf:
    """The command for `method`: its parameters by rule and touch, its callback `run`. `path`: its words, where they are
    not the method's."""

    @click.pass_context
    def callback(context: click.Context, /, **values: Values) -> None:
        run(context, method, values)

    path = path or " ".join(words_of(method))
    made = Leaf(path, callback=callback, about=method.summary, params=_parameters(method), answers=method.result)
    # A value that was typed after all is refused by `run`, which says why instead of repeating it.
    made.allow_extra_args = method.name == "secret.put"
    return made


def _parameters(method: Method) -> list[click.Parameter]:
    touch, source = touch_of(method), source_of(method)
    arguments: list[click.Parameter] = []
    chosen: list[click.Parameter] = []
    for field in inputs_of(method):
        if field.name == method.target or field.name in touch.arguments:
            arguments.append(_argument(field))
        elif field is source:
            chosen.append(_source(field, touch.source_option))
        else:
            chosen.extend(_options(field))
    if touch.confirm:
        chosen.append(click.Option(["--yes", "-y"], is_flag=True, help="Do not ask."))
    if method.name == "secret.put":
        chosen.append(click.Option(["--trim"], is_flag=True, help="Drop one line end behind the value."))
    if method.name == "secret.get":
        chosen.append(click.Option(["--field"], metavar="NAME", help="Only this field of a field map."))
    return [*arguments, *chosen, *_outputs(method)]


def _argument(field: Field) -> click.Parameter:
    integer = click.IntRange(0, field.most) if field.kind is Kind.INTEGER else None
    kind = click.Choice(field.choices) if field.choices else integer
    complete = completion.COMPLETERS.get(field.name)
    return click.Argument([field.name], required=field.required, type=kind, shell_complete=complete)


def _source(field: Field, option: str) -> click.Parameter:
    what = f"{field.summary.removesuffix('.')}: read from this file"
    default = None if field.name == "value" else "-"
    text = f"{what}." if default is None else f"{what} [standard input]."
    return click.Option([option, f"from_{field.name}"], metavar="FILE", type=_READABLE, default=default, help=text)


def _options(field: Field) -> list[click.Parameter]:
    flag = f"--{field.name.replace('_', '-')}"
    match field.kind:
        case Kind.BYTES if field.name in TEXTUAL:
            return [
                click.Option([flag, field.name], metavar="TEXT", help=field.summary),
                click.Option(
                    [f"{flag}-file", f"from_{field.name}"],
                    metavar="FILE",
                    type=_READABLE,
                    help="The same, from a file.",
                ),
            ]
        case Kind.BYTES:
            return [
                click.Option([flag, f"from_{field.name}"], metavar="FILE", type=_READABLE, required=field.required,
                             help=f"{field.summary.removesuffix('.')}: a file."),
            ]  # fmt: skip
        case Kind.FIELDS:
            return [
                click.Option(
                    ["--field", "asked"],
                    metavar="NAME",
                    multiple=True,
                    help="A field to ask for, echo off; may be repeated.",
                ),
                click.Option(
                    ["--field-file", "named"],
                    metavar="NAME=FILE",
                    multiple=True,
                    help="A field from a file; may be repeated.",
                ),
            ]
        case Kind.INTEGER:
            return [
                Number(
                    [flag, field.name],
                    type=click.IntRange(0, field.most),
                    metavar="N",
                    required=field.required,
                    help=field.summary,
                )
            ]
        case Kind.FLAG:
            return [click.Option([flag, field.name], is_flag=True, default=None, help=field.summary)]
        case Kind.TEXT if field.choices:
            shown = None if len(field.choices) < 6 else flag.removeprefix("--").upper()
            text = field.summary if shown is None else f"{field.summary.removesuffix('.')}: {', '.join(field.choices)}."
            return [
                click.Option(
                    [flag, field.name],
                    type=click.Choice(field.choices),
                    metavar=shown,
                    required=field.required,
                    help=text,
                )
            ]
        case Kind.TEXT:
            complete = completion.COMPLETERS.get(field.name)
            return [
                click.Option(
                    [flag, field.name],
                    metavar="TEXT",
                    required=field.required,
                    shell_complete=complete,
                    help=field.summary,
                )
            ]
        case Kind.TEXTS | Kind.MAP | Kind.LIST | Kind.INTEGERS:
            raise AssertionError(field)


def _outputs(method: Method) -> list[click.Parameter]:
    outlets = outlets_of(method)
    if not outlets:
        return []
    made: list[click.Parameter] = []
    if len(outlets) == 1:
        where = f"{outlets[0].summary.removesuffix('.')}: into this file [standard output]."
        made.append(click.Option(["--out", f"to_{outlets[0].name}"], metavar="FILE", type=_FILE, help=where))
    else:
        for field in outlets:
            where = f"{field.summary.removesuffix('.')}: into this file."
            made.append(
                click.Option([f"--{field.name}-out", f"to_{field.name}"], metavar="FILE", type=_FILE, help=where)
            )
    if method.name == "key.public":
        made.append(click.Option(["--der"], is_flag=True, help="DER instead of PEM."))
    made.append(click.Option(["--base64", "form"], flag_value="base64", help="Write bytes as base64 text."))
    made.append(click.Option(["--hex", "form"], flag_value="hex", help="Write bytes as hex text."))
    made.append(click.Option(["--raw", "force"], is_flag=True, help="Write raw bytes even to a terminal."))
    return made


def _first_sentence(text: str) -> str:
    return f"{text.partition('. ')[0].removesuffix('.')}."
