"""`openk`: the command line. Every method of the protocol is `openk NOUN VERB`; a few commands do more than that."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence

import click

from openk.wire.methods import METHODS
from openk_tools import audit, backup, hsm, special
from openk_tools.commands import command_of
from openk_tools.failure import Failure, tell, tell_system, tell_usage
from openk_tools.settings import options
from openk_tools.touches import words_of

_NOUNS = {
    "system": "The daemon itself.",
    "vault": "Vaults: places for keys and secrets, with keys of their own.",
    "key": "Keys: create them and use them; they never leave.",
    "random": "Random bytes from the HSM.",
    "secret": "Secrets: put, get, list, delete.",
    "hsm": "The HSMs: which they are, how they are, what is on them, how fast they are.",
    "backup": "Backups of the daemon's state: make one now, see what is kept.",
    "policy": "Who may do what, and why.",
    "audit": "The signed log of everything that was asked.",
}

_INTRODUCTION = """Keys and secrets behind an HSM, from the command line.

What to work on comes from a file (--in) or standard input; what comes back goes to a file (--out) or standard
output. Secret values are never arguments: they are read from a file, standard input, or asked for.
"""


class Root(click.Group):
    """Shows how to begin under its help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("To begin"):
            for line in (
                "openk health",
                "openk vault create payments",
                "openk key create payments/card --algorithm aes-256-gcm",
                "openk key encrypt payments/card --in card.txt --out card.sealed",
                "openk key decrypt payments/card --in card.sealed",
            ):
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def make() -> Root:
    """The whole tree of commands."""
    root = Root("openk", help=_INTRODUCTION, params=options(root=True), no_args_is_help=True)
    nouns = {noun: click.Group(noun, help=text, no_args_is_help=True) for noun, text in _NOUNS.items()}
    for method in METHODS.values():
        nouns[words_of(method)[0]].add_command(command_of(method))
    for command in audit.COMMANDS:
        nouns["audit"].add_command(command)
    for command in backup.COMMANDS:
        nouns["backup"].add_command(command)
    for command in hsm.COMMANDS:
        nouns["hsm"].add_command(command)
    for group in nouns.values():
        root.add_command(group)
    for single in special.commands(root):
        root.add_command(single)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit status: 0, that of the code table, 2 for usage, 1 for a local failure,
    130 when interrupted."""
    # A core file would hold whatever secret was being read.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    typed = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in typed
    try:
        status = make().main(args=typed, prog_name="openk", standalone_mode=False)
        sys.stdout.flush()
    except Failure as failure:
        return tell(failure, as_json=as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        return tell_usage(error, as_json=as_json)
    except OSError as error:
        return tell_system(error, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        click.echo("openk: stopped.", err=True)
        return 130
    return status if isinstance(status, int) else os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
