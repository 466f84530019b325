"""Manual pages from the commands themselves: openk(1), and openk-NOUN(1) for each noun. roff with the man macros."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Final

import click

from openk.wire.codes import CODES
from openk_tools.commands import Leaf
from openk_tools.settings import options

_ENVIRONMENT: Final = (
    ("OPENK_SOCKET", "The daemon's socket, where --socket is not given."),
    ("OPENK_TIMEOUT", "Seconds to wait for an answer, where --timeout is not given."),
    ("NO_COLOR", "When set, tables are drawn without colour."),
)


def pages() -> dict[str, str]:
    """Each page's text under its file name."""
    from openk_tools.cli import make  # noqa: PLC0415 - the tree holds the command that calls this

    root = make()
    groups = {name: group for name, group in sorted(root.commands.items()) if isinstance(group, click.Group)}
    made = {"openk.1": _root_page(root, groups)}
    for name, group in groups.items():
        made[f"openk-{name}.1"] = _group_page(name, group)
    return made


def _root_page(root: click.Group, groups: dict[str, click.Group]) -> str:
    about, _, more = (root.help or "").partition("\n\n")
    lines = [_head("openk", about)]
    lines.append(".SH SYNOPSIS\n.B openk\n[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]\n")
    lines.append(f".SH DESCRIPTION\n{_escape(about)}\n.PP\n{_escape(' '.join(more.split()))}\n")
    lines.append(".SH COMMANDS\n")
    for name, group in groups.items():
        verbs = ", ".join(sorted(group.commands))
        lines.append(
            f".TP\n.B openk {_escape(name)}\n{_escape(group.help or '')} ({_escape(verbs)}; see\n"
            f".BR openk-{name} (1).)\n"
        )
    for name, command in sorted(root.commands.items()):
        if isinstance(command, Leaf):
            lines.extend(_command(f"openk {name}", command))
    lines.append(".SH OPTIONS OF EVERY COMMAND\nThey may stand before or behind the command.\n")
    lines.extend(_options(options(root=True)))
    lines.append(".SH ENVIRONMENT\n")
    lines.extend(f".TP\n.B {_escape(name)}\n{_escape(text)}\n" for name, text in _ENVIRONMENT)
    lines.append(".SH EXIT STATUS\n")
    lines.extend(_exits())
    return "".join(lines)


def _group_page(name: str, group: click.Group) -> str:
    about = group.help or ""
    lines = [_head(f"openk-{name}", about), ".SH SYNOPSIS\n"]
    for verb, command in sorted(group.commands.items()):
        if isinstance(command, Leaf):
            lines.append(f"{_synopsis(f'openk {name} {verb}', command)}.br\n")
    lines.append(".SH COMMANDS\n")
    for verb, command in sorted(group.commands.items()):
        if isinstance(command, Leaf):
            lines.extend(_command(f"openk {name} {verb}", command))
    lines.append(
        ".SH SEE ALSO\n.BR openk (1)\nfor the options of every command, the environment and the exit status.\n"
    )
    return "".join(lines)


def _head(name: str, about: str) -> str:
    version = metadata.version("openkd")
    title = f'.TH "{_escape(name.upper())}" "1" "" "openk {version}" "openk"\n'
    made = '.\\" Made by python -m openk_tools.reference; do not edit.\n'
    return f"{made}{title}.SH NAME\n{_escape(name)} \\- {_escape(about.removesuffix('.'))}\n"


def _synopsis(path: str, command: Leaf) -> str:
    arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
    shown = " ".join(_argument(argument) for argument in arguments)
    return f"\\fB{_escape(path)}\\fR {shown}{' ' if shown else ''}[\\fIOPTIONS\\fR]\n"


def _argument(argument: click.Argument) -> str:
    text = f"\\fI{_escape((argument.name or '').upper())}\\fR"
    return text if argument.required else f"[{text}]"


def _command(path: str, command: Leaf) -> Iterator[str]:
    yield f".SS {_escape(path)}\n{_synopsis(path, command)}.PP\n{_escape(command.help or '')}\n"
    shared = {parameter.name for parameter in options(root=False)}
    yield from _options(parameter for parameter in command.params if parameter.name not in shared)
    if command.answers:
        yield ".PP\nAnswer:\n"
        for field in command.answers:
            yield f".TP\n.I {_escape(field.name)}\n{_escape(field.summary)}\n"
    if command.examples:
        yield ".PP\nExamples:\n.PP\n.nf\n.RS\n"
        for example in command.examples:
            yield f"{_escape(example)}\n"
        yield ".RE\n.fi\n"


def _options(parameters: Iterable[click.Parameter]) -> Iterator[str]:
    for parameter in parameters:
        if not isinstance(parameter, click.Option):
            continue
        names = ", ".join(f"\\fB{_escape(name)}\\fR" for name in parameter.opts)
        value = "" if parameter.is_flag else f" \\fI{_escape(_metavar(parameter))}\\fR"
        needed = " Required." if parameter.required else ""
        yield f".TP\n{names}{value}\n{_escape((parameter.help or '') + needed)}\n"


def _metavar(option: click.Option) -> str:
    if isinstance(option.type, click.Choice) and option.metavar is None:
        return "|".join(map(str, option.type.choices))
    return option.metavar or "VALUE"


def _exits() -> Iterator[str]:
    """Which code leads to which exit status."""
    groups: dict[int, list[str]] = {
        0: ["success"],
        1: ["a file or a local step failed"],
        2: ["a mistake in the command line"],
    }
    for row in CODES.values():
        groups.setdefault(row.exit, []).append(row.name)
    groups.setdefault(130, []).append("interrupted")
    for status, names in sorted(groups.items()):
        yield f".TP\n.B {status}\n{_escape(', '.join(names))}\n"


def _escape(text: str) -> str:
    """Text for roff: backslashes, hyphens that must stay hyphens, and a leading dot or quote."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
