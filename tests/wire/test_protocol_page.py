"""docs/protocol.md is true: its examples are what they say, and every code and limit it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import msgpack
import pytest

from openk.wire.arguments import ENTRIES_MOST, ITEMS_MOST, check
from openk.wire.codes import CODES
from openk.wire.methods import METHODS
from openk.wire.reader import Limits, Reader, Request, Response
from tests.wire.frames import buffer, plain

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```text\n(.+?)\n```\n\n```hex\n(.+?)\n```", PAGE, re.DOTALL)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 8


@pytest.mark.parametrize(("said", "shown"), EXAMPLES)
def test_an_example_is_what_it_says(said: str, shown: str) -> None:
    value = ast.literal_eval(said.replace("nil", "None"))
    frame = bytes.fromhex(shown)
    assert msgpack.packb(value) == frame
    found = Reader(Limits()).read(*buffer(frame))
    if isinstance(found, Request):
        assert [0, found.msgid, found.method, [plain(found.params)]] == value
        check(METHODS[found.method], found.params)
    else:
        assert isinstance(found, Response)
        assert [1, found.msgid, plain(found.error), plain(found.result)] == value


def test_every_code_it_names_exists() -> None:
    groups = {code.partition(".")[0] for code in CODES}
    named = {name for name in re.findall(r"`(\w+\.\w+)`", PAGE) if name.partition(".")[0] in groups}
    assert named
    assert named <= set(CODES) | set(METHODS)


def test_its_limits_are_the_readers() -> None:
    limits = Limits()
    assert limits.message_bytes == 1 << 20
    for sentence in (
        "| one message | 1 MiB |",
        f"counted | {limits.depth} |",
        f"counting two | {limits.values} |",
        f"entries of a `fields` map | {ITEMS_MOST} |",
    ):
        assert sentence in PAGE
    assert ITEMS_MOST == ENTRIES_MOST
