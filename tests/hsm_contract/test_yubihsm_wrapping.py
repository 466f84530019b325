"""What a YubiHSM sealed opens in its context, under its key, on its device, unchanged; nowhere else."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yubihsm.defs import COMMAND

from openk_hsm.errors import InvalidCiphertext
from openk_hsm.inline import InlineLane
from openk_hsm.roots import FIRST_FREE_SLOT, ROOT_DATA_CCM
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Purpose, Resident
from openk_hsm.yubihsm.hot import DATA_OVERHEAD
from tests.support.yubihsm_inline import InlineDevice, back_end_of

DATA = KeySpec(Algorithm.AES_256_CCM, Purpose.ENCRYPT)
SLOTS = count(FIRST_FREE_SLOT)
BYTES = st.binary(max_size=300)
CONTEXT = st.binary(max_size=60)


@pytest.fixture(scope="module")
def lanes() -> list[InlineLane]:
    return [InlineDevice(serial).lane() for serial in (1, 2)]


@pytest.fixture(scope="module")
def vaults(lanes: list[InlineLane]) -> list[KeyHandle]:
    made: list[KeyHandle] = []
    for name in ("openk-data-one", "openk-data-two"):
        lanes[0].generate_resident(DATA, name, name.encode()).result()
        made.append(KeyHandle(next(SLOTS), DATA, Resident(name, name.encode())))
    return made


def seal(lane: InlineLane, key: KeyHandle, data: bytes, context: bytes) -> bytes:
    operation = Operation(OpCode.ENCRYPT, len(data) + 62, key, Mechanism.WRAP_DATA, data, context)
    sealed = lane.submit(operation).result()
    assert isinstance(sealed, bytes)
    return sealed


def opened(lane: InlineLane, key: KeyHandle, sealed: bytes, context: bytes) -> bytes:
    operation = Operation(OpCode.DECRYPT, len(sealed), key, Mechanism.WRAP_DATA, sealed, context)
    plain = lane.submit(operation).result()
    assert isinstance(plain, bytes)
    return plain


@settings(max_examples=60, deadline=None)
@given(data=BYTES, context=CONTEXT, other=CONTEXT, at=st.integers(0), bit=st.integers(0, 7))
def test_only_there(
    lanes: list[InlineLane],
    vaults: list[KeyHandle],
    data: bytes,
    context: bytes,
    other: bytes,
    at: int,
    bit: int,
) -> None:
    here, elsewhere = lanes
    one, two = vaults
    sealed = seal(here, one, data, context)
    assert len(sealed) == len(data) + DATA_OVERHEAD
    assert opened(here, one, sealed, context) == data
    at %= len(sealed)
    flipped = sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :]
    wrong = [
        (here, one, flipped, context),
        (here, two, sealed, context),  # another vault
        (here, ROOT_DATA_CCM, sealed, context),  # another level
        (elsewhere, ROOT_DATA_CCM, sealed, context),  # another device
        (here, one, sealed[:-1], context),
        (here, one, sealed + b"\0", context),
    ]
    if other != context:
        wrong.append((here, one, sealed, other))
    for lane, key, blob, where in wrong:
        with pytest.raises(InvalidCiphertext):
            opened(lane, key, blob, where)


@settings(max_examples=100, deadline=None)
@given(garbage=st.binary(max_size=200), context=CONTEXT)
def test_garbage_never_opens(lanes: list[InlineLane], garbage: bytes, context: bytes) -> None:
    with pytest.raises(InvalidCiphertext):
        opened(lanes[0], ROOT_DATA_CCM, garbage, context)


def test_what_another_program_wrapped_with_the_same_key_does_not_open(lanes: list[InlineLane]) -> None:
    """WRAP DATA itself binds nothing: without the digest inside, any use of the key would make ciphertexts for us."""
    backend = back_end_of(lanes[0])
    number, _ = backend._hot.keys[ROOT_DATA_CCM.slot]
    blob = bytes(backend._opened.ask(COMMAND.WRAP_DATA, number.to_bytes(2, "big"), b"x" * 80))
    with pytest.raises(InvalidCiphertext):
        opened(lanes[0], ROOT_DATA_CCM, blob, b"x" * 80)
