"""What type checkers see of the methods: the same list serves three clients, each with return types of its own.

`assert_type` does nothing when run; mypy and pyright, which look at this file too (pyproject.toml), check each of them."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, assert_type

import openk
import openk.trio
from openk.answers import Answer
from openk.errors import Error
from openk.future import Future
from openk.results import Ciphertext, HsmStatus
from openk.secret import Secret


def returned(client: openk.Client) -> None:
    assert_type(client.key.encrypt("v/k", b""), Ciphertext)
    assert_type(client.key.encrypt_many("v/k", [b""]), list[Ciphertext | Error])
    assert_type(client.within(1).random.bytes(), Secret)
    assert_type(client.hsm.status(), list[HsmStatus])
    assert_type(client.call("system.ping"), Answer)


def promised(client: openk.Client) -> None:
    with client.pipeline() as many:
        assert_type(many.key.encrypt("v/k", b""), Future[Ciphertext])
        assert_type(many.call("system.ping"), Future[Answer])


async def awaited(client: openk.trio.Client) -> None:
    waiting = client.key.encrypt("v/k", b"")
    await assert_type(waiting, Coroutine[Any, Any, Ciphertext])
    assert_type(await client.key.encrypt("v/k", b""), Ciphertext)
    assert_type(await client.within(1).call("system.ping"), Answer)


def test_methods_of_the_trio_client_are_coroutine_functions_and_others_are_not(tmp_path: Path) -> None:
    assert inspect.iscoroutinefunction(openk.trio.Client(tmp_path / "none").key.encrypt)
    client = openk.Client(tmp_path / "none")
    assert not inspect.iscoroutinefunction(client.key.encrypt)
    assert not inspect.iscoroutinefunction(client.pipeline().key.encrypt)
