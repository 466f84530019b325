"""Where a command differs from what the method table alone would give. Everything else follows by rule:

- the field that names what the method acts on is an argument, other fields are options;
- the first required `bytes` field is read from `--in FILE`, or standard input;
- a single `bytes` result is written raw to `--out FILE`, or standard output; of several, each wants its own file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openk.wire.methods import METHODS, Field, Kind, Method

TEXTUAL: Final = frozenset({"aad", "label", "context", "echo"})
"""`bytes` fields that are usually text: `--NAME TEXT` or `--NAME-file FILE`. None of them is secret."""


@dataclass(frozen=True, slots=True)
class Touch:
    """`arguments`: fields that are positional besides the target. `source`: the field `--in` feeds, under the
    option `source_option`. `outlets`: results written raw; None: by rule. `pages`: lists to be read to their end,
    with the field that continues. `confirm`: a question asked before. `text`: the
    result that is the whole answer. `done`: what a person is told when the answer is empty."""

    arguments: tuple[str, ...] = ()
    source: str | None = None
    source_option: str = "--in"
    outlets: tuple[str, ...] | None = None
    pages: tuple[str, str] | None = None
    confirm: str | None = None
    text: str | None = None
    done: str | None = None


_TOUCHES: Final[dict[str, Touch]] = {
    "system.ping": Touch(done="The daemon answers."),
    "system.metrics": Touch(text="text"),
    "system.log_level": Touch(arguments=("level",)),
    "vault.list": Touch(pages=("vaults", "vault")),
    "key.list": Touch(pages=("keys", "key")),
    "key.public": Touch(outlets=("public",)),
    "secret.list": Touch(pages=("secrets", "secret")),
    "secret.put": Touch(source="value", source_option="--from-file"),
    "secret.get": Touch(outlets=("value",)),
    "secret.delete": Touch(confirm="Delete {secret} {which}? This cannot be undone."),
    "policy.explain": Touch(arguments=("action", "resource")),
    "audit.head": Touch(outlets=()),
    "audit.prove": Touch(arguments=("index",)),
}

if unknown := set(_TOUCHES) - set(METHODS):
    raise AssertionError(unknown)


def touch_of(method: Method) -> Touch:
    return _TOUCHES.get(method.name, Touch())


def inputs_of(method: Method) -> tuple[Field, ...]:
    """All fields a single request takes."""
    return (*method.fields, *method.item)


def source_of(method: Method) -> Field | None:
    """The field that `--in` feeds."""
    named = touch_of(method).source
    for field in inputs_of(method):
        if field.name == named or (named is None and field.kind is Kind.BYTES and field.required):
            return field
    return None


def outlets_of(method: Method) -> tuple[Field, ...]:
    """The results that are written raw."""
    named = touch_of(method).outlets
    binary = (field for field in method.result if field.kind is Kind.BYTES)
    return tuple(field for field in binary if named is None or field.name in named)


def words_of(method: Method) -> tuple[str, str]:
    """`key.data_key` is `openk key data-key`."""
    noun, _, verb = method.name.partition(".")
    return noun, verb.replace("_", "-")
