"""What was wrapped or sealed opens where it should and nowhere else: parts of what was made are put together anew, by
chance, on every back end. Only what is whole and together as it was made opens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Final, TypeVar

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openk_hsm.errors import InvalidCiphertext
from openk_hsm.roots import ROOT
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Purpose, Wrapped, Wrapper
from tests.hsm_contract.conftest import SLOTS, Bench
from tests.support.tokens import answer

T = TypeVar("T")
MAC: Final = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)
LONG_MAC: Final = KeySpec(Algorithm.HMAC_SHA_512, Purpose.MAC)
DERIVE: Final = KeySpec(Algorithm.HMAC_SHA_256, Purpose.DERIVE)
KW: Final = KeySpec(Algorithm.AES_256_KWP, Purpose.KEY_WRAP)
MECHANISMS: Final = {MAC: Mechanism.HMAC_SHA_256, LONG_MAC: Mechanism.HMAC_SHA_512, DERIVE: Mechanism.HMAC_SHA_256}
CONTEXTS: Final = (b"", b"payments/card 1", b"payments/card 2")
NONCE: Final = bytes(range(12))
EXAMPLES: Final = 60


def spoilt(blobs: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of them, half of the time; else two joined anywhere, one with a bit flipped, cut, or with something behind."""
    whole = st.sampled_from(blobs)
    place = st.integers(0, max(map(len, blobs)))
    joined = st.builds(lambda one, two, at: one[:at] + two[at:], whole, whole, place)
    cut = st.builds(lambda one, at: one[:at], whole, place)
    longer = st.builds(lambda one, more: one + more, whole, st.binary(min_size=1, max_size=9))
    flipped = st.builds(_flip, whole, place, st.integers(0, 7))
    return st.one_of(whole, whole, whole, whole, joined, flipped, cut, longer)


def _flip(blob: bytes, at: int, bit: int) -> bytes:
    at %= len(blob)
    return blob[:at] + bytes([blob[at] ^ 1 << bit]) + blob[at + 1 :]


@dataclass(frozen=True)
class Opening:
    """How a wrapped key may be told."""

    spec: KeySpec
    kw: KeyHandle
    mac: KeyHandle
    context: bytes
    blob: bytes


async def use(bench: Bench, told: Opening) -> bytes | None:
    """What the key says to a question; None where it does not open."""
    key = KeyHandle(next(SLOTS), told.spec, Wrapped(Wrapper(told.kw, told.mac), told.context, told.blob))
    try:
        said = await answer(bench.lane.submit(Operation(OpCode.MAC, 64, key, MECHANISMS[told.spec], b"question")))
    except InvalidCiphertext:
        return None
    finally:
        bench.lane.unload(key)
    assert isinstance(said, bytes)
    return said


async def test_a_wrapped_key_opens_as_it_was_wrapped(wrapping_bench: Bench) -> None:
    bench = wrapping_bench
    vaults = [ROOT]
    for number in (b"1", b"2"):
        kw, mac = await bench.key(KW, ROOT, number + b" kw"), await bench.key(MAC, ROOT, number + b" mac")
        vaults.append(Wrapper(kw, mac))
    made: dict[Opening, bytes] = {}
    for spec, vault, context in product((MAC, LONG_MAC), vaults, CONTEXTS[:2]):
        blob = (await answer(bench.lane.generate(spec, vault, context))).blob
        assert blob is not None
        told = Opening(spec, vault.kw, vault.mac, context, blob)
        said = await use(bench, told)
        assert said is not None
        made[told] = said
    assert len(set(made.values())) == len(made)
    anyhow = st.builds(
        Opening,
        st.sampled_from([MAC, LONG_MAC, DERIVE]),
        st.sampled_from([vault.kw for vault in vaults]),
        st.sampled_from([vault.mac for vault in vaults]),
        st.sampled_from(CONTEXTS),
        spoilt([told.blob for told in made]),
    )
    await each(mixed(list(made), anyhow), lambda told: use(bench, told), made)


@dataclass(frozen=True)
class Sealed:
    """How sealed data may be told: `key` is a slot."""

    key: int
    context: bytes
    data: bytes


async def test_sealed_data_open_as_they_were_sealed(bench: Bench) -> None:
    spec = KeySpec(bench.info.data, Purpose.ENCRYPT)
    mechanism = {
        Algorithm.AES_256_CCM: Mechanism.WRAP_DATA,
        Algorithm.AES_256_CBC_HMAC: Mechanism.AES_CBC_HMAC,
        Algorithm.AES_256_GCM: Mechanism.AES_GCM,
    }[bench.info.data]
    nonce = b"" if mechanism is Mechanism.WRAP_DATA else NONCE
    keys = {key.slot: key for key in [await bench.key(spec, ROOT, name) for name in (b"vault 1", b"vault 2")]}

    async def cipher(code: OpCode, told: Sealed) -> bytes:
        room = len(told.data) + 64
        operation = Operation(code, room, keys[told.key], mechanism, told.data, told.context, nonce)
        done = await answer(bench.lane.submit(operation))
        assert isinstance(done, bytes)
        return done

    async def opened(told: Sealed) -> bytes | None:
        try:
            return await cipher(OpCode.DECRYPT, told)
        except InvalidCiphertext:
            return None

    made: dict[Sealed, bytes] = {}
    for slot, context, plain in product(keys, CONTEXTS[:2], (b"hunter2", bytes(48))):
        sealed = await cipher(OpCode.ENCRYPT, Sealed(slot, context, plain))
        made[Sealed(slot, context, sealed)] = plain
    blobs = [told.data for told in made]
    anyhow = st.builds(Sealed, st.sampled_from(list(keys)), st.sampled_from(CONTEXTS), spoilt(blobs))
    await each(mixed(list(made), anyhow), opened, made)


def mixed(made: Sequence[T], anyhow: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """One that was made, mostly with one field of another; or anything."""
    names = [field.name for field in fields(made[0])]  # type: ignore[arg-type]  # a dataclass
    one = st.sampled_from(made)
    nearly = st.builds(
        lambda told, other, name: replace(told, **{name: getattr(other, name)}), one, anyhow, st.sampled_from(names)
    )
    return st.one_of(one, nearly, nearly, nearly, anyhow)


async def each(
    told: st.SearchStrategy[T], opened: Callable[[T], Awaitable[bytes | None]], made: Mapping[T, bytes]
) -> None:
    """`opened` gives what was made and nothing else. Hypothesis draws in a thread: the lane is this one's."""

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(told)
    def opens_as_it_was_made(one: T) -> None:
        assert trio.from_thread.run(opened, one) == made.get(one)

    await trio.to_thread.run_sync(opens_as_it_was_made)
