"""What a token does differently, and what may happen to it: shown by SoftHSM2 behind a module that spoils it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import trio

from openk_hsm.dialling import Limits
from openk_hsm.errors import HsmError
from openk_hsm.lane import WorkerLane
from openk_hsm.roots import ROOT, ROOT_MAC
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Purpose, Resident, Wrapped
from tests.support.foreign_tokens import ForeignToken, refusal_of
from tests.support.shim import Shim
from tests.support.tokens import MODULE, answer, lane_over, worker

LIMITS = Limits(handoff_bytes=64 << 10)
MAC = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)
NONCE = bytes(range(12))


def probed(token: ForeignToken) -> dict[str, object]:
    return cast(dict[str, object], json.loads(token.cli("probe", "--json", *token.access)))


def chosen(token: ForeignToken) -> dict[str, str]:
    return cast(dict[str, str], probed(token)["chosen"])


@asynccontextmanager
async def serving(token: ForeignToken, folder: Path) -> AsyncGenerator[WorkerLane]:
    with worker(token.uri, folder / "s", token.pin_file, token.environment):
        async with lane_over([folder / "s"], limits=LIMITS) as lane:
            with trio.fail_after(10):
                await lane.ready()
            yield lane


async def mac(lane: WorkerLane, key: KeyHandle) -> bytes:
    result = await answer(lane.submit(Operation(OpCode.MAC, 32, key, Mechanism.HMAC_SHA_256, b"question")))
    assert isinstance(result, bytes)
    return result


def test_gcm_is_chosen_where_the_token_keeps_our_nonce(shim: Shim) -> None:
    assert chosen(shim.spoilt())["data"] == "AES-256-GCM, openk's nonces"


@pytest.mark.parametrize(("word", "why"), [("own-nonce", "draws its own nonce"), ("no-gcm", "has no AES-GCM")])
def test_cbc_and_hmac_are_chosen_where_gcm_will_not_do(shim: Shim, word: str, why: str) -> None:
    told = chosen(shim.spoilt(word))["data"]
    assert told.startswith("AES-256-CBC, then HMAC-SHA-256")
    assert why in told
    assert "AES_GCM" not in str(probed(shim.spoilt(word))["mechanisms"])


def empty(shim: Shim) -> Shim:
    """The same token without any object."""
    for path in (shim.token.folder / "tokens").glob("*/*.object"):
        if path.name != "token.object":
            path.unlink()
    return shim


async def test_what_was_sealed_without_gcm_opens_after_the_token_learns_it(shim: Shim, tmp_path: Path) -> None:
    before = empty(shim).spoilt("no-gcm")
    before.cli("init", *before.access)
    async with serving(before, tmp_path) as lane:
        info = await answer(lane.info())
        assert info.data is Algorithm.AES_256_CBC_HMAC
        spec = KeySpec(info.data, Purpose.ENCRYPT)
        made = await answer(lane.generate(spec, ROOT, b"vault data"))
        assert made.blob is not None
        key = KeyHandle(16, spec, Wrapped(ROOT, b"vault data", made.blob))
        sealing = Operation(OpCode.ENCRYPT, 100, key, Mechanism.AES_CBC_HMAC, b"record", b"c", NONCE)
        sealed = await answer(lane.submit(sealing))
        assert isinstance(sealed, bytes)
        identity = info.identity
    async with serving(shim.spoilt(), tmp_path) as lane:
        info = await answer(lane.info())
        assert (info.data, info.identity) == (Algorithm.AES_256_CBC_HMAC, identity)
        opening = Operation(OpCode.DECRYPT, 100, key, Mechanism.AES_CBC_HMAC, sealed, b"c", NONCE)
        assert await answer(lane.submit(opening)) == b"record"
        again = await answer(lane.generate(spec, ROOT, b"another vault's"))  # vaults made now seal as their root does
        assert again.blob is not None


def test_a_token_that_lost_gcm_is_not_given_other_keys_in_silence(shim: Shim) -> None:
    token = shim.spoilt("no-gcm")
    said = token.cli("init", "--complete", *token.access)
    assert "nothing" in said
    assert "seals with AES-GCM" in refused(token)


def refused(token: ForeignToken) -> str:
    """What a worker's daemon hears."""

    error = trio.run(refusal_of, token)
    return f"{error.code}: {error}"


def test_a_key_that_unwraps_extractable_is_never_used(shim: Shim) -> None:
    token = shim.spoilt("unwraps-extractable")
    assert chosen(token)["key objects"].startswith("none wraps")
    assert refused(token).startswith("key.unsupported: the token 'openk-dev' wraps no keys")
    fresh = empty(shim).spoilt("unwraps-extractable")
    assert "wraps no keys" in fresh.cli("init", *fresh.access, status=1)


def test_a_key_that_is_made_modifiable_is_refused_by_its_name(shim: Shim) -> None:
    token = empty(shim).spoilt("generates-modifiable")
    said = token.cli("init", *token.access, status=1)
    assert "hsm.untrusted" in said
    assert "'openk-root-kw'" in said
    assert "CKA_MODIFIABLE = 01 where openk sets 00" in said


@pytest.mark.parametrize("word", ["one-session", "one-left", "one-rw-session", "user-is-in"])
async def test_a_token_short_of_sessions_is_served_with_what_there_is(shim: Shim, tmp_path: Path, word: str) -> None:
    async with serving(shim.spoilt(word), tmp_path) as lane:
        made = await answer(lane.generate(MAC, ROOT, b"c"))
        assert made.blob is not None
        assert len(await mac(lane, KeyHandle(16, MAC, Wrapped(ROOT, b"c", made.blob)))) == 32


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("no-session", "hsm.unavailable: the token 'openk-dev' has no session left"),
        ("login-is-lost", "hsm.unavailable: the login does not hold in a second session"),
        ("officer-is-in", "hsm.refused: the security officer is logged in"),
        ("pin-locked", "hsm.pin: the token's PIN is locked"),
        ("flag-locked", "hsm.pin: the token's PIN is locked"),
        ("pin-expired", "hsm.pin: the token wants a new PIN"),
    ],
)
def test_a_login_that_fails_says_what_to_do(shim: Shim, word: str, says: str) -> None:
    assert refused(shim.spoilt(word)).startswith(says)


async def test_a_token_pulled_out_and_put_back_needs_no_hand(shim: Shim, tmp_path: Path) -> None:
    token = shim.spoilt()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_worker, token, tmp_path / "s")
        async with lane_over([tmp_path / "s"], limits=LIMITS) as lane:
            with trio.fail_after(20):
                await lane.ready()
                before = await mac(lane, ROOT_MAC)
                shim.switch.touch()
                async with trio.open_nursery() as asking:
                    asked: list[bytes] = []

                    async def ask() -> None:
                        asked.append(await mac(lane, ROOT_MAC))

                    asking.start_soon(ask)
                    await trio.sleep(0.5)
                    assert not asked
                    shim.switch.unlink()
                assert asked == [before]
        nursery.cancel_scope.cancel()


async def _keep_worker(token: ForeignToken, socket: Path) -> None:
    """What a monitor does: start the worker again when it ends."""
    while True:
        with worker(token.uri, socket, token.pin_file, token.environment) as process:
            await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)


DESTROY = """
import sys, pkcs11
token = pkcs11.lib(sys.argv[1]).get_token(token_label="openk-dev")
with token.open(rw=True, user_pin=open(sys.argv[2]).read().strip()) as session:
    for key in list(session.get_objects({pkcs11.Attribute.LABEL: sys.argv[3]})):
        key.destroy()
"""


def destroy(shim: Shim, label: str) -> None:
    """What somebody else with the PIN could do, in a process of their own."""
    command = [sys.executable, "-c", DESTROY, MODULE, str(shim.token.pin_file), label]
    subprocess.run(command, env=shim.token.environment, check=True, timeout=20)


def test_a_root_key_destroyed_behind_our_back_is_not_made_anew_in_silence(shim: Shim) -> None:
    destroy(shim, "openk-root-mac")
    said = refused(shim.spoilt())
    assert said.startswith(
        "hsm.token_uninitialised: the token 'openk-dev' has no openk-root-mac, but it has openk-root-kw"
    )
    assert "from its backup" in said


def test_a_token_initialised_anew_is_told_from_ours(shim: Shim) -> None:
    shutil.rmtree(next((shim.token.folder / "tokens").glob("*-*")))
    assert refused(shim.spoilt()).startswith(("hsm.token_missing", "hsm.token_uninitialised"))


async def test_a_resident_key_destroyed_behind_our_back_fails_alone(shim: Shim, tmp_path: Path) -> None:
    async with serving(shim.spoilt(), tmp_path) as lane:
        await answer(lane.generate_resident(MAC, "openk-key-00", b"\x00"))
        key = KeyHandle(16, MAC, Resident("openk-key-00", b"\x00"))
        assert await mac(lane, key) == await mac(lane, key)
        await trio.to_thread.run_sync(destroy, shim, "openk-key-00")
        lane.unload(key)
        with pytest.raises(HsmError, match="no key named 'openk-key-00': it was destroyed, not by openk"):
            await mac(lane, KeyHandle(17, MAC, key.source))
        assert len(await mac(lane, ROOT_MAC)) == 32
        assert lane.health().restarts == 0


LOOSE = """
import sys, pkcs11
from pkcs11 import Attribute, KeyType
token = pkcs11.lib(sys.argv[1]).get_token(token_label="openk-dev")
with token.open(rw=True, user_pin=open(sys.argv[2]).read().strip()) as session:
    name = {Attribute.LABEL: sys.argv[3], Attribute.ID: b"x", Attribute.TOKEN: True, Attribute.PRIVATE: True}
    loose = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: True, Attribute.MODIFIABLE: False, Attribute.COPYABLE: False}
    session.generate_key(KeyType.GENERIC_SECRET, 256, template={**name, **loose})
"""


@pytest.mark.parametrize(("label", "trusted"), [("openk-key-11", False), ("another-programs", True)])
def test_every_key_of_openk_is_looked_at_when_a_worker_starts(shim: Shim, label: str, trusted: bool) -> None:
    """Nobody asks for it; it is refused by its name all the same. Keys of other programs are their own affair."""
    command = [sys.executable, "-c", LOOSE, MODULE, str(shim.token.pin_file), label]
    subprocess.run(command, env=shim.token.environment, check=True, timeout=20)
    token = shim.spoilt()
    if trusted:
        assert "AES-256-GCM" in token.cli("probe", *token.access)
    else:
        said = refused(token)
        assert said.startswith("hsm.untrusted: the key 'openk-key-11' on the token has CKA_EXTRACTABLE = 01")
