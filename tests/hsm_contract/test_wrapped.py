"""A wrapped key opens where it was bound to and nowhere else, on every back end."""

from __future__ import annotations

from itertools import count
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openk_hsm.errors import HsmError, InvalidCiphertext
from openk_hsm.inline import InlineLane
from openk_hsm.roots import ROOT
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Purpose, Wrapped, Wrapper
from openk_hsm.software import SoftwareBackend
from tests.hsm_contract.conftest import SLOTS, Bench
from tests.support.tokens import answer

MAC = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)
KW = KeySpec(Algorithm.AES_256_KWP, Purpose.KEY_WRAP)


def again(handle: KeyHandle, **changes: object) -> KeyHandle:
    """The same key told differently, in a slot of its own."""
    source = cast(Wrapped, handle.source)
    fields: dict[str, object] = {"wrapper": source.wrapper, "context": source.context, "blob": source.blob}
    spec = cast(KeySpec, changes.pop("spec", handle.spec))
    fields.update(changes)
    return KeyHandle(next(SLOTS), spec, Wrapped(**fields))  # type: ignore[arg-type]  # fields by name


async def use(bench: Bench, key: KeyHandle) -> bytes:
    result = await answer(bench.lane.submit(Operation(OpCode.MAC, 64, key, Mechanism.HMAC_SHA_256, b"question")))
    assert isinstance(result, bytes)
    return result


async def test_wrappers_nest_as_vaults_do(wrapping_bench: Bench) -> None:
    vault = Wrapper(await wrapping_bench.key(KW, ROOT, b"vault kw"), await wrapping_bench.key(MAC, ROOT, b"vault mac"))
    key = await wrapping_bench.key(MAC, vault, b"key")
    expected = await use(wrapping_bench, key)
    assert await use(wrapping_bench, again(key)) == expected
    for part in (key, vault.kw, vault.mac):
        wrapping_bench.lane.unload(part)
    assert await use(wrapping_bench, key) == expected


async def test_another_context_wrapper_or_spec_does_not_open(wrapping_bench: Bench) -> None:
    vault = Wrapper(await wrapping_bench.key(KW, ROOT, b"1 kw"), await wrapping_bench.key(MAC, ROOT, b"1 mac"))
    other = Wrapper(await wrapping_bench.key(KW, ROOT, b"2 kw"), await wrapping_bench.key(MAC, ROOT, b"2 mac"))
    key = await wrapping_bench.key(MAC, vault, b"payments/card 1")
    assert await use(wrapping_bench, key)
    derive = KeySpec(Algorithm.HMAC_SHA_256, Purpose.DERIVE)
    wrong = [
        again(key, context=b"payments/card 2"),
        again(key, context=b""),
        again(key, wrapper=other),
        again(key, wrapper=ROOT),
        again(key, wrapper=Wrapper(vault.kw, other.mac)),
        again(key, wrapper=Wrapper(other.kw, vault.mac)),
        again(key, spec=derive),
    ]
    for handle in wrong:
        with pytest.raises(InvalidCiphertext):
            await use(wrapping_bench, handle)
    assert await use(wrapping_bench, key)


async def test_an_aes_blob_does_not_open_as_a_generic_secret(wrapping_bench: Bench) -> None:
    """KWP alone would allow it; then the key's use with HMAC tells about its value."""
    key = await wrapping_bench.key(KW)
    with pytest.raises(InvalidCiphertext):
        await use(wrapping_bench, again(key, spec=MAC))


async def test_flipped_cut_and_extended_blobs_do_not_open(wrapping_bench: Bench) -> None:
    key = await wrapping_bench.key(MAC)
    blob = cast(Wrapped, key.source).blob
    changed = [blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :] for at in range(len(blob))]
    changed += [blob[:-1], blob[:-8], blob + bytes(8), b"", bytes(len(blob)), blob[:54]]
    for wrong in changed:
        with pytest.raises(InvalidCiphertext):
            await use(wrapping_bench, again(key, blob=wrong))
    assert await use(wrapping_bench, key)


async def test_a_wrapping_key_that_does_not_open_spoils_what_it_wraps(wrapping_bench: Bench) -> None:
    vault = Wrapper(await wrapping_bench.key(KW, ROOT, b"kw"), await wrapping_bench.key(MAC, ROOT, b"mac"))
    key = await wrapping_bench.key(MAC, vault, b"key")
    broken = Wrapper(again(vault.kw, context=b"else"), vault.mac)
    with pytest.raises(InvalidCiphertext):
        await use(wrapping_bench, again(key, wrapper=broken))
    with pytest.raises(InvalidCiphertext):
        await answer(wrapping_bench.lane.generate(MAC, broken, b"new"))


async def test_what_cannot_be_wrapped_is_refused(wrapping_bench: Bench) -> None:
    for spec in (
        KeySpec(Algorithm.ML_DSA_65, Purpose.SIGN),
        KeySpec(Algorithm.ML_KEM_768, Purpose.ENCAPSULATE),
        KeySpec(Algorithm.AES_256_GCM, Purpose.SIGN),
    ):
        with pytest.raises(HsmError) as refused:
            await answer(wrapping_bench.lane.generate(spec, ROOT, b"c"))
        assert refused.value.code == "key.unsupported"


async def test_every_spec_named_as_wrapped_really_is(wrapping_bench: Bench) -> None:
    slow = {Algorithm.RSA_3072, Algorithm.RSA_4096}
    for spec in wrapping_bench.info.wrapped:
        if spec.algorithm not in slow:
            made = await answer(wrapping_bench.lane.generate(spec, ROOT, b"c"))
            assert made.blob


SOFTWARE = InlineLane(SoftwareBackend(allow=True))
PROPERTY_SLOTS = count(1 << 20)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(blob=st.binary(max_size=200), data=st.data())
def test_garbage_never_opens_and_never_breaks(blob: bytes, data: st.DataObject) -> None:
    made = SOFTWARE.generate(MAC, ROOT, b"c").result()
    assert made.blob is not None
    at = data.draw(st.integers(0, len(made.blob)))
    mixed = made.blob[:at] + blob
    if mixed == made.blob:
        return
    key = KeyHandle(next(PROPERTY_SLOTS), MAC, Wrapped(ROOT, b"c", mixed))
    with pytest.raises(InvalidCiphertext):
        SOFTWARE.submit(Operation(OpCode.MAC, 32, key, Mechanism.HMAC_SHA_256, b"q")).result()
