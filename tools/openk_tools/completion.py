"""Completion of vault, key and secret names by asking the daemon, briefly and in silence; and the scripts that
make a shell ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import click
from click.shell_completion import CompletionItem, get_completion_class

from openk.wire.methods import METHODS
from openk_tools.failure import Failure
from openk_tools.session import Session
from openk_tools.settings import Settings
from openk_tools.values import Answer

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_OPENK_COMPLETE"

Completer: TypeAlias = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]


def script(root: click.Command, shell: str) -> str:
    """What to put into the shell's start file."""
    made = get_completion_class(shell)
    if made is None:
        raise AssertionError(shell)
    # The template itself: source() would start bash to look at its version.
    return made.source_template % made(root, {}, "openk", VARIABLE).source_vars()


def _names(context: click.Context, method: str, params: Answer, listed: str, named: str) -> list[str]:
    given = context.find_object(Settings) or Settings()
    try:
        with Session(Settings(socket=given.socket, timeout=0.5)) as session:
            rows = session.call(method, params).get(listed)
    except Failure:
        return []
    if not isinstance(rows, list):
        return []
    return [str(row[named]) for row in rows if isinstance(row, dict) and named in row]


def _vaults(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    del parameter
    names = _names(context, "vault.list", {}, "vaults", "vault")
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _inside(method: str, listed: str, named: str) -> Completer:
    """First the vault with its slash, then what is in it."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        vault, slash, _ = incomplete.partition("/")
        if not slash:
            return [CompletionItem(f"{item.value}/") for item in _vaults(context, parameter, incomplete)]
        names = _names(context, method, {"vault": vault}, listed, named)
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return complete


def _hsms(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    del parameter
    names = _names(context, "hsm.list", {}, "hsms", "hsm")
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _actions(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    del context, parameter
    return [CompletionItem(name) for name in METHODS if name.startswith(incomplete)]


COMPLETERS: Final[dict[str, Completer]] = {
    "vault": _vaults,
    "key": _inside("key.list", "keys", "key"),
    "secret": _inside("secret.list", "secrets", "secret"),
    "hsm": _hsms,
    "action": _actions,
}
