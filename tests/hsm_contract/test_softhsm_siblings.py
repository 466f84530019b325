"""Several workers of one SoftHSM2 token: each sees what the others make, and one that dies takes nothing along."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from openk_hsm.lane import WorkerLane
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Purpose, Resident
from tests.support.tokens import Token, answer, lane_over, start_worker, worker

SIGNER = KeySpec(Algorithm.P256, Purpose.SIGN)
SOURCE = Path(__file__).parents[1] / "support" / "pkcs11_shim" / "sudden.c"
ROUNDS = 12
"""Of two that made objects at once, one overlooked the other's in two of five rounds."""


@pytest.fixture(scope="session")
def sudden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("sudden") / "sudden.so"
    command = ["gcc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return library


@contextmanager
def sibling(token: Token, name: str) -> Iterator[Path]:
    """All of them keep their state in the token's folder."""
    with worker(token.uri, token.folder / name, token.pin_file, token.environment):
        yield token.folder / name


def handle(name: str, slot: int) -> KeyHandle:
    return KeyHandle(slot, SIGNER, Resident(name, name.encode()))


async def make(lane: WorkerLane, name: str) -> None:
    await answer(lane.generate_resident(SIGNER, name, name.encode()))


async def sign(lane: WorkerLane, name: str, slot: int) -> None:
    operation = Operation(OpCode.SIGN, 64, handle(name, slot), Mechanism.ECDSA, bytes(32))
    await answer(lane.submit(operation))


async def test_keys_that_two_make_at_once_are_seen_by_both(token: Token) -> None:
    with sibling(token, "a") as one, sibling(token, "b") as two:
        async with lane_over([one]) as first, lane_over([two]) as second:
            for turn in range(ROUNDS):
                names = f"first-{turn}", f"second-{turn}"
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(make, first, names[0])
                    nursery.start_soon(make, second, names[1])
                for lane in (first, second):
                    for index, name in enumerate(names):
                        await sign(lane, name, 1000 + 2 * turn + index)
            assert first.health().restarts == second.health().restarts == 0


async def test_a_token_that_a_killed_login_emptied_is_put_back(token: Token, sudden: Path) -> None:
    (file,) = (token.folder / "tokens").glob("*/token.object")
    before = file.read_bytes()
    environment = {**token.environment, "LD_PRELOAD": str(sudden)}
    dying = start_worker(token.uri, token.folder / "a", token.pin_file, environment)
    assert dying.wait(timeout=10) == -signal.SIGKILL
    assert file.read_bytes() == b""
    with sibling(token, "a") as one:
        async with lane_over([one]) as lane:
            await make(lane, "afterwards")
            await sign(lane, "afterwards", 1000)
    assert len(file.read_bytes()) == len(before)
