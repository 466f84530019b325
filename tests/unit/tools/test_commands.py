"""The commands are complete, say how they are used, and never take a secret where other users could read it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from openk.wire.methods import METHODS, Kind, Method
from openk_tools.cli import make
from openk_tools.commands import Leaf
from openk_tools.examples import EXAMPLES
from openk_tools.touches import TEXTUAL, inputs_of, outlets_of, source_of, words_of
from tests.unit.tools.stage import run


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Leaf]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            assert isinstance(command, Leaf)
            yield " ".join((*path, name)), command


COMMANDS = dict(leaves(make()))


@pytest.mark.parametrize("method", METHODS.values(), ids=str)
def test_each_method_has_a_command_that_takes_each_of_its_fields(method: Method) -> None:
    command = COMMANDS[" ".join(words_of(method))]
    names = {parameter.name for parameter in command.params}
    for field in inputs_of(method):
        if field.kind is Kind.FIELDS:
            assert {"asked", "named"} <= names
        else:
            assert {field.name, f"from_{field.name}"} & names, field


@pytest.mark.parametrize("method", METHODS.values(), ids=str)
def test_no_secret_is_an_argument(method: Method) -> None:
    """A secret field, and any `bytes` field that is not known to be harmless text, comes from a file or a prompt."""
    command = COMMANDS[" ".join(words_of(method))]
    for field in inputs_of(method):
        typed = [parameter for parameter in command.params if parameter.name == field.name]
        if field.secret or (field.kind is Kind.BYTES and field.name not in TEXTUAL):
            assert not typed, field
        for parameter in command.params:
            if parameter.name == f"from_{field.name}":
                assert isinstance(parameter.type, click.Path)


def test_no_secret_field_counts_as_text() -> None:
    for method in METHODS.values():
        assert not [field.name for field in inputs_of(method) if field.secret and field.name in TEXTUAL]


def test_secret_put_field_refuses_a_value_on_the_command_line(tmp_path: Path) -> None:
    ran = run(["--socket", str(tmp_path / "none"), "secret", "put", "v/s", "--field", "password=hunter2"])
    assert ran.status == 2
    assert "would be seen by every user" in ran.err
    assert "hunter2" not in ran.err


@pytest.mark.parametrize("path", COMMANDS)
def test_each_command_teaches_by_examples_that_are_right(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Path, "convert", lambda self, value, parameter, context: value)  # files need not exist
    assert EXAMPLES[path]
    for example in EXAMPLES[path]:
        assert f" openk {path}" in f" {example}"
        words = shlex.split(example.rpartition("| openk")[2] if "| openk" in example else example.removeprefix("openk"))
        words = [word for word in words if word != ">" and not word.startswith("~")]
        if "|" in words:
            words = words[: words.index("|")]
        parse(words)


def parse(words: list[str]) -> None:
    """Parse `words` down to the command, without running it."""
    context = make().make_context("openk", list(words))
    while isinstance(context.command, click.Group):
        rest = [*context._protected_args, *context.args] if hasattr(context, "_protected_args") else context.args
        name, command, left = context.command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, left, parent=context)


def test_no_example_is_for_a_command_that_is_gone() -> None:
    assert set(EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS)
def test_help_shows_the_examples_and_needs_no_daemon(path: str) -> None:
    ran = run([*path.split(), "--help"])
    assert ran.status == 0
    assert "Examples:" in ran.out.decode()


@pytest.mark.parametrize("path", COMMANDS)
def test_options_of_every_command_are_on_every_command(path: str) -> None:
    flags = {flag for parameter in COMMANDS[path].params for flag in parameter.opts}
    assert {"--json", "--socket", "--timeout"} <= flags


def test_typos_are_told_the_nearest_command() -> None:
    assert "decrypt" in run(["key", "decryt", "v/k"]).err
    assert "secret" in run(["secert", "get", "v/s"]).err
    assert "--algorithm" in run(["key", "create", "v/k", "--algoritm", "p-256"]).err


def test_methods_with_several_secret_results_want_a_place_for_each() -> None:
    several = [method.name for method in METHODS.values() if len(outlets_of(method)) > 1]
    assert several == ["key.data_key", "key.encapsulate"]
    ran = run(["key", "encapsulate", "v/kem", "--ciphertext-out", "-"])
    assert ran.status == 2
    assert "--shared-out" in ran.err


def test_sources_are_as_people_expect() -> None:
    assert {name: getattr(source_of(METHODS[name]), "name", None) for name in ("key.encrypt", "key.decrypt", "secret.put", "key.create")} == {
        "key.encrypt": "input",
        "key.decrypt": "ciphertext",
        "secret.put": "value",
        "key.create": None,
    }  # fmt: skip
