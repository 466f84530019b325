"""The trio client against the real daemon: many tasks over one connection."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

import openk
import openk.trio
from openk import errors
from tests.support.daemon import RunningDaemon


@pytest.fixture
async def awaited(daemon: RunningDaemon) -> AsyncIterator[openk.trio.Client]:
    async with openk.trio.Client(daemon.socket, timeout=20) as client:
        yield client


async def test_each_noun_answers(awaited: openk.trio.Client) -> None:
    assert await awaited.system.ping(b"echo") == b"echo"
    await awaited.vault.create("trio")
    assert len(await awaited.random.bytes(16)) == 16
    await awaited.key.create("trio/aes", "aes-256-gcm")
    await awaited.key.create("trio/sign", "p-256")
    await awaited.key.create("trio/mac", "hmac-sha-256")
    signature = (await awaited.key.sign("trio/sign", b"document")).signature
    assert (await awaited.key.verify("trio/sign", b"document", signature)).version == 1
    mac = (await awaited.key.mac("trio/mac", b"message")).mac
    assert (await awaited.key.verify_mac("trio/mac", b"message", mac)).version == 1
    await awaited.secret.put("trio/secret", b"value")
    assert bytes((await awaited.secret.get("trio/secret")).value or b"") == b"value"
    assert (await awaited.policy.explain("key.encrypt", "trio/aes")).allowed
    assert (await awaited.audit.head()).size > 0


async def test_two_hundred_tasks_share_a_connection(awaited: openk.trio.Client) -> None:
    await awaited.vault.create("trio-many")
    await awaited.key.create("trio-many/aes", "aes-256-gcm")
    opened: dict[int, bytes] = {}

    async def round_trip(number: int) -> None:
        text = str(number).encode()
        sealed = await awaited.key.encrypt("trio-many/aes", text, aad=text)
        opened[number] = bytes((await awaited.key.decrypt("trio-many/aes", sealed.ciphertext, aad=text)).plaintext)

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(round_trip, number)
    assert opened == {number: str(number).encode() for number in range(200)}


async def test_an_error_is_its_own_tasks(awaited: openk.trio.Client) -> None:
    with pytest.raises(errors.VaultFault) as refused:
        await awaited.key.encrypt("trio-nowhere/key", b"")
    assert refused.value.code == "vault.unknown"
    assert await awaited.system.ping() is None
