"""Which audit key a token gets, and that it keeps it: shown by SoftHSM2 behind a module that hides what it can do."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
import trio

from openk_hsm import audit_key
from openk_hsm.dialling import Limits
from openk_hsm.errors import HsmError
from openk_hsm.group import GroupLane
from openk_hsm.lane import WorkerLane
from openk_hsm.lane_health import LaneState
from openk_hsm.roots import ROOT_MAC
from openk_hsm.seam import Algorithm, Mechanism, OpCode, Operation, TokenInfo
from tests.hsm_contract.test_group import until
from tests.hsm_contract.test_traits import destroy
from tests.support.foreign_tokens import ForeignToken, refusal_of
from tests.support.shim import Shim
from tests.support.tokens import answer, lane_over, worker

KINDS = {
    Algorithm.ED25519: "no-p256",
    Algorithm.P256: "no-ed25519",
    Algorithm.RSA_3072: "no-ed25519 no-p256",
    None: "no-ed25519 no-p256 no-rsa",
}
"""A kind to what a token says no to that gets it."""
LIMITS = Limits(handoff_bytes=64 << 10)
SETTLED = {LaneState.UP, LaneState.DIVERGED}


@pytest.fixture
def empty(shim: Shim) -> Shim:
    """A token without any object."""
    for path in (shim.token.folder / "tokens").glob("*/*.object"):
        if path.name != "token.object":
            path.unlink()
    return shim


async def describe(token: ForeignToken) -> TokenInfo:
    """As a daemon hears it; an audit key signs, and the public key that is told verifies it."""
    socket = token.pin_file.parent / "s"
    with worker(token.uri, socket, token.pin_file, token.environment):
        async with lane_over([socket], limits=LIMITS) as lane:
            with trio.fail_after(20):
                info = await lane.ready()
            if info.audit is not None:
                audit, public = audit_key.load_public(info.audit_public)
                assert audit is info.audit
                signed = await answer(lane.submit(audit_key.signing(audit, b"head")))
                assert isinstance(signed, bytes)
                assert audit_key.verifies(public, b"head", audit_key.signature_of(audit, signed))
            return info


@pytest.mark.parametrize("audit", KINDS)
async def test_a_token_gets_the_best_that_it_makes(empty: Shim, audit: Algorithm | None) -> None:
    token = empty.spoilt(KINDS[audit])
    made = json.loads(token.cli("init", "--json", *token.access))
    assert made["algorithms"].get("openk-audit") == audit
    info = await describe(token)
    assert info.audit is audit
    assert bool(info.audit_public) == (audit is not None)
    told = info.chosen["audit"]
    for word, name in (("no-ed25519", "no ed25519"), ("no-p256", "no p-256"), ("no-rsa", "no rsa-3072")):
        assert (name in told) == (word in KINDS[audit] and audit != Algorithm.ED25519), told


@pytest.mark.parametrize("audit", [Algorithm.P256, Algorithm.RSA_3072])
async def test_a_token_that_learns_better_keeps_its_key(empty: Shim, audit: Algorithm) -> None:
    before = empty.spoilt(KINDS[audit])
    before.cli("init", *before.access)
    known = await describe(before)
    after = empty.spoilt()
    assert "nothing" in after.cli("init", "--complete", *after.access)
    info = await describe(after)
    assert (info.audit, info.audit_public, info.identity) == (audit, known.audit_public, known.identity)
    assert "no " not in info.chosen["audit"]


async def test_a_token_that_signs_with_its_key_no_more_says_so(shim: Shim) -> None:
    error = await refusal_of(shim.spoilt("no-ed25519"))
    assert error.code == "key.unsupported"
    assert "openk-audit is an ed25519 key, and the token signs with none now" in str(error)


async def test_a_token_without_one_gets_it_from_init(empty: Shim) -> None:
    """As one that an openk initialised which knew Ed25519 only."""
    none = empty.spoilt(KINDS[None])
    none.cli("init", *none.access)
    token = empty.spoilt(KINDS[Algorithm.P256])
    error = await refusal_of(token)
    assert error.code == "hsm.token_uninitialised"
    assert "no openk-audit: `openk-hsm init --complete` makes one" in str(error)
    assert token.cli("init", "--complete", *token.access) == "created: openk-audit (p-256)\n"
    assert (await describe(token)).audit is Algorithm.P256


@pytest.mark.parametrize("audit", [Algorithm.P256, Algorithm.RSA_3072])
async def test_a_group_has_an_audit_key_of_any_kind(empty: Shim, tmp_path: Path, audit: Algorithm) -> None:
    """Two tokens of the same keys are a group; where one's audit key was made anew it is none."""
    left = empty.spoilt(KINDS[audit])
    left.cli("init", *left.access)
    right = Shim(empty.module, empty.token.copy(tmp_path / "right"))
    stranger = Shim(empty.module, empty.token.copy(tmp_path / "stranger"))
    destroy(stranger, "openk-audit")
    other = stranger.spoilt(KINDS[audit])
    assert "openk-audit" in other.cli("init", "--complete", *other.access)
    with ExitStack() as workers:
        members: list[WorkerLane] = []
        for name, token in (("left", left), ("right", right.spoilt(KINDS[audit])), ("stranger", other)):
            workers.enter_context(worker(token.uri, tmp_path / f"{name}.sock", token.pin_file, token.environment))
            members.append(WorkerLane(name, [str(tmp_path / f"{name}.sock")], limits=LIMITS))
        group = GroupLane("main", members, limits=LIMITS)
        async with AsyncExitStack() as running:
            nursery = await running.enter_async_context(trio.open_nursery())
            nursery.start_soon(group.run)
            with trio.fail_after(20):
                assert (await group.ready()).audit is audit
                await until(lambda: all(member.state in SETTLED for member in group.members))
            assert [member.state for member in group.members] in (
                [LaneState.UP, LaneState.UP, LaneState.DIVERGED],
                [LaneState.DIVERGED, LaneState.DIVERGED, LaneState.UP],  # whoever answers first is right
            )
            mac = Operation(OpCode.MAC, 32, ROOT_MAC, Mechanism.HMAC_SHA_256, b"q")
            assert await answer(group.submit(mac))
            assert await answer(group.submit(audit_key.signing(audit, b"head")))
            nursery.cancel_scope.cancel()


def test_a_public_key_of_another_kind_is_no_audit_key() -> None:
    with pytest.raises(HsmError, match="cannot be read"):
        audit_key.load_public(b"\x30\x00")
