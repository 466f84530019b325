"""Several HSMs at once, on the real daemon: each vault on its own, a group that fails over, and what happens when the
configuration or a token is not what it was."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from tests.recovery.daemon.assault import among, load
from tests.support.load import Book, Refused, Wire, check, furnish
from tests.support.site import Site, Source, answered, refused, until_state
from tests.support.tokens import Token, make_token

SOON = ("breaker_seconds = 2.0",)


def source(token: Token, workers: int = 1) -> Source:
    return Source(token.uri, token.pin_file, token.environment, workers)


@pytest.fixture(scope="module")
def other_token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    """A token with root keys of its own."""
    return make_token(tmp_path_factory.mktemp("other") / "t")


async def test_a_vault_lives_on_its_hsm(token: Token, other_token: Token, tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"main": source(token), "vendor": source(other_token)}, settings=SOON)
    async with site.running() as wire:
        await until_state(wire, "vendor", "up")
        assert (await answered(wire, "vault.create", vault="here"))["hsm"] == "main"
        assert (await answered(wire, "vault.create", vault="there", hsm="vendor"))["hsm"] == "vendor"
        wrong, _ = await refused(wire, "vault.create", vault="nowhere", hsm="vender")
        assert wrong.code == "request.invalid"
        assert "did you mean vendor?" in wrong.message
        for vault in ("here", "there"):
            await answered(wire, "key.create", key=f"{vault}/k", algorithm="p-256")
            await answered(wire, "key.create", key=f"{vault}/r", algorithm="p-256", protection="resident")
            await answered(wire, "secret.put", secret=f"{vault}/s", value=b"v" * 20)
        for hsm, there in (("main", 1), ("vendor", 1)):
            listed = (await answered(wire, "hsm.objects", hsm=hsm))["objects"]
            assert [row["state"] for row in listed if row["role"] == "key"].count("ok") >= there
        site.hold("vendor")
        await until_state(wire, "vendor", "down")
        assert await answered(wire, "key.sign", key="here/k", input=b"x")
        assert await answered(wire, "secret.get", secret="here/s")
        answer, seconds = await refused(wire, "key.sign", key="there/k", input=b"x")
        assert answer.code == "hsm.unavailable"
        assert seconds < 0.5
        site.release("vendor")
        await until_state(wire, "vendor", "up")
        for vault in ("here", "there"):
            assert await answered(wire, "key.sign", key=f"{vault}/k", input=b"x")
            assert await answered(wire, "key.sign", key=f"{vault}/r", input=b"x")
            assert (await answered(wire, "secret.get", secret=f"{vault}/s"))["value"] == b"v" * 20
    await again_without_and_with(site, token, other_token, tmp_path)


async def again_without_and_with(site: Site, token: Token, other_token: Token, tmp_path: Path) -> None:
    """Another start: an HSM that is configured no longer, then another token in its place, then the right one."""
    lone = Site(site.folder, {"main": source(token)})
    async with lone.running() as wire:
        assert await answered(wire, "key.sign", key="here/k", input=b"x")
        answer, _ = await refused(wire, "key.sign", key="there/k", input=b"x")
        assert answer.code == "hsm.unavailable"
        listed = (await answered(wire, "vault.list"))["vaults"]
        assert {row["vault"]: row["hsm"] for row in listed} == {"here": "main", "there": "vendor"}
    stranger = make_token(tmp_path / "stranger")
    wrong = Site(site.folder, {"main": source(token), "vendor": source(stranger)})
    async with wrong.running() as wire:
        row = await until_state(wire, "vendor", "down")
        assert "another token" in wrong.log or row["advice"]
        answer, _ = await refused(wire, "key.sign", key="there/k", input=b"x")
        assert answer.code == "hsm.untrusted"
        assert await answered(wire, "key.sign", key="here/k", input=b"x")
    right = Site(site.folder, {"main": source(token), "vendor": source(other_token)})
    async with right.running() as wire:
        await until_state(wire, "vendor", "up")
        assert await answered(wire, "key.sign", key="there/r", input=b"x")


async def test_a_group_serves_while_one_of_its_members_is_away(token: Token, tmp_path: Path) -> None:
    """Two tokens with the same root keys; one goes, comes back, the other goes: no client hears of it."""
    twin = token.copy(tmp_path / "twin")
    groups = {"main": ["left", "right"]}
    site = Site(tmp_path / "site", {"left": source(token), "right": source(twin)}, groups, SOON)
    chance = random.Random(7)
    book = Book()
    async with site.running() as wire:
        await until_workers(wire, 2)
        await furnish(site.socket, book)
        async with load(site.folder, book, chance, 6):
            for member in ("left", "right", "left"):
                before = book.answered
                await trio.sleep(0.5)
                site.hold(member)
                await until_workers(wire, 1)
                await trio.sleep(1.0)
                assert book.answered > before + 20
                site.release(member)
                await until_workers(wire, 2)
        await check(site.socket, book)
        # A group makes no token objects: they would be on one member only.
        assert among(book, lambda method, code: (method, code) == ("key.create resident", "key.unsupported")) == []
        assert book.lost == 0
        site.hold("left")
        site.hold("right")
        await until_state(wire, "main", "down")
        answer, _ = await refused(wire, "key.sign", key="load/second", input=b"x")
        assert answer.code == "hsm.unavailable"
        site.release("right")
        await until_state(wire, "main", "up")
        assert await answered(wire, "key.sign", key="load/second", input=b"x")


async def test_a_store_moves_from_one_hsm_to_a_group_that_has_it(token: Token, tmp_path: Path) -> None:
    single = Site(tmp_path / "site", {"left": source(token)})
    async with single.running() as wire:
        await answered(wire, "vault.create", vault="v")
        await answered(wire, "key.create", key="v/k", algorithm="p-256")
    grown = Site(
        tmp_path / "site",
        {"left": source(token), "right": source(token.copy(tmp_path / "twin"))},
        {"main": ["left", "right"]},
    )
    for _ in range(2):
        async with grown.running() as wire:
            await until_workers(wire, 2)
            assert await answered(wire, "key.sign", key="v/k", input=b"x")


async def test_a_member_with_other_root_keys_is_told_and_not_used(
    token: Token, other_token: Token, tmp_path: Path
) -> None:
    site = Site(tmp_path / "site", {"left": source(token), "right": source(other_token)}, {"main": ["left", "right"]})
    site.held.add("right-0")
    async with site.running() as wire:
        await answered(wire, "vault.create", vault="v")
        await answered(wire, "key.create", key="v/k", algorithm="p-256")
        site.release("right")
        with trio.fail_after(20):
            while "root keys are not its group's" not in str(await answered(wire, "system.health")):  # noqa: ASYNC110
                await trio.sleep(0.05)
        for _ in range(20):
            assert await answered(wire, "key.sign", key="v/k", input=b"x")
        metrics = (await answered(wire, "system.metrics"))["text"]
        assert 'openk_hsm_diverged{lane="right"} 1' in metrics
        assert 'openk_hsm_diverged{lane="left"} 0' in metrics


async def until_workers(wire: Wire, count: int) -> None:
    with trio.fail_after(30):
        while True:
            (answer,) = await wire.ask([("hsm.status", {"hsm": "main"})])
            assert not isinstance(answer, Refused), answer
            assert answer is not None
            if answer["hsms"][0]["workers"] == count:
                return
            await trio.sleep(0.02)


async def test_two_daemons_on_one_token_are_noticed(token: Token, tmp_path: Path) -> None:
    first = Site(tmp_path / "first", {"main": source(token)})
    second = Site(tmp_path / "second", {"main": source(token.copy(tmp_path / "copy"))})
    async with first.running() as one:
        assert "another openkd" not in str(await answered(one, "system.health"))
        async with second.running() as two:
            with trio.fail_after(20):
                while "uses the same token" not in str(await answered(two, "system.health")):  # noqa: ASYNC110
                    await trio.sleep(0.05)
            assert first.daemon is not None
            assert f"process {first.daemon.pid}" in str(await answered(two, "system.health"))
            assert "another openkd" not in str(await answered(one, "system.health"))
            assert "hsm.shared" in second.log
