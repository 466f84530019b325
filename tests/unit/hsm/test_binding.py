from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_hsm import binding
from openk_hsm.binding import Wrap
from openk_hsm.errors import InvalidCiphertext
from openk_hsm.seam import Algorithm, KeySpec, Purpose
from openk_hsm.specs import ALGORITHM_NUMBERS, MECHANISMS, PURPOSE_NUMBERS, Attributes, bound_attributes, spec_of

SPECS = st.sampled_from(sorted(MECHANISMS, key=str))
IDS = st.binary(min_size=16, max_size=16)
KWP = st.integers(2, 40).flatmap(lambda units: st.binary(min_size=8 * units, max_size=8 * units))


@given(SPECS, IDS, KWP)
def test_a_blob_comes_apart_as_it_was_put_together(spec: KeySpec, wrapping: bytes, kwp: bytes) -> None:
    head = binding.header(spec, wrapping)
    blob = binding.assemble(head, b"t" * 32, kwp)
    assert binding.split(blob, spec, wrapping) == (head, b"t" * 32, kwp)
    assert len(blob) == 54 + len(kwp)
    assert blob[:4] == bytes((1, 1, ALGORITHM_NUMBERS[spec.algorithm], PURPOSE_NUMBERS[spec.purpose]))


@given(SPECS, SPECS, IDS, IDS, KWP)
def test_another_spec_or_wrapping_key_is_refused(a: KeySpec, b: KeySpec, one: bytes, two: bytes, kwp: bytes) -> None:
    blob = binding.assemble(binding.header(a, one), bytes(32), kwp)
    if a != b or one != two:
        with pytest.raises(InvalidCiphertext):
            binding.split(blob, b, two)


@given(st.binary(max_size=300), SPECS, IDS)
def test_garbage_is_refused(blob: bytes, spec: KeySpec, wrapping: bytes) -> None:
    with pytest.raises(InvalidCiphertext):
        binding.split(blob, spec, wrapping)


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_the_authenticated_bytes_tell_context_from_blob(c1: bytes, k1: bytes, c2: bytes, k2: bytes) -> None:
    head = bytes(22)
    same = binding.authenticated(head, c1, k1) == binding.authenticated(head, c2, k2)
    assert same == ((c1, k1) == (c2, k2))


WRAPPED = st.binary(min_size=16, max_size=200)
PAIR = KeySpec(Algorithm.AES_256_CBC_HMAC, Purpose.ENCRYPT)


@given(SPECS, IDS, WRAPPED, st.sampled_from(sorted(Wrap)), st.sets(st.sampled_from(sorted(Wrap))))
def test_a_blob_says_how_it_was_wrapped_and_opens_only_where_that_is_done(
    spec: KeySpec, wrapping: bytes, wrapped: bytes, way: Wrap, done: set[Wrap]
) -> None:
    wrapped = wrapped[: len(wrapped) - len(wrapped) % 8]
    blob = binding.assemble(binding.header(spec, wrapping, way), bytes(32), wrapped)
    if way in done:
        head, _, body = binding.split(blob, spec, wrapping, frozenset(done))
        assert (Wrap(head[1]), body) == (way, wrapped)
    else:
        with pytest.raises(InvalidCiphertext, match=f"this token does not do .{way.name}"):
            binding.split(blob, spec, wrapping, frozenset(done))
    assert binding.spec_in(blob) == spec


@given(st.binary(min_size=1, max_size=100), st.binary(min_size=1, max_size=100))
def test_a_pair_comes_apart_as_it_was_joined(first: bytes, second: bytes) -> None:
    assert binding.split_pair(binding.join_pair(first, second)) == (first, second)


@given(st.binary(min_size=2, max_size=100))
def test_what_is_no_pair_is_refused(wrapped: bytes) -> None:
    try:
        first, second = binding.split_pair(wrapped)
    except InvalidCiphertext:
        return
    assert binding.join_pair(first, second) == wrapped


def test_a_pair_is_a_key_of_its_own_kind() -> None:
    """What one key sealed is not opened with two, nor the other way round: the blob's kind is bound."""
    single = KeySpec(Algorithm.AES_256_GCM, Purpose.ENCRYPT)
    assert binding.is_pair(PAIR)
    assert not binding.is_pair(single)
    blob = binding.assemble(binding.header(PAIR, bytes(16), Wrap.CBC), bytes(32), bytes(64))
    assert binding.spec_in(blob) == PAIR
    with pytest.raises(InvalidCiphertext):
        binding.split(blob, single, bytes(16), frozenset(Wrap))
    assert binding.spec_in(blob[:20]) is None


def test_ids_of_wrapping_keys_differ_by_everything_that_names_them() -> None:
    one, two = sorted(MECHANISMS, key=str)[:2]
    ids = {
        binding.resident_id("a", b"b"),
        binding.resident_id("ab", b""),
        binding.resident_id("", b"ab"),
        binding.wrapped_id(one, b"context"),
        binding.wrapped_id(two, b"context"),
        binding.wrapped_id(one, b"other"),
    }
    assert len(ids) == 6


def test_no_lasting_key_may_leave_or_change() -> None:
    for spec in MECHANISMS:
        bits = bound_attributes(spec)
        assert bits & Attributes.SENSITIVE
        assert not bits & (Attributes.EXTRACTABLE | Attributes.MODIFIABLE | Attributes.COPYABLE)
        assert not (bits & Attributes.UNWRAP and bits & Attributes.DECRYPT)
        assert spec_of(ALGORITHM_NUMBERS[spec.algorithm], PURPOSE_NUMBERS[spec.purpose]) == spec


def test_numbers_are_never_shared() -> None:
    for table in (ALGORITHM_NUMBERS, PURPOSE_NUMBERS):
        assert len(set(table.values())) == len(table)
    assert spec_of(200, 1) is None


# What stored blobs are made of: written out here, because no token would open another daemon's blobs if it changed.
SINGLE = KeySpec(Algorithm.AES_256_GCM, Purpose.ENCRYPT)


def test_the_hmac_is_over_these_bytes() -> None:
    head = binding.header(SINGLE, bytes(range(16)))
    assert binding.authenticated(head, b"c" * 300, b"w" * 24) == (
        b"openk.key-object.1\x00" + head + b"\x00\x00\x01\x2c" + b"c" * 300 + b"w" * 24
    )
    assert head[6:] == bytes(range(16))
    assert head[4:6] == int(bound_attributes(SINGLE)).to_bytes(2, "big")


def test_ids_of_wrapping_keys_are_digests_over_these_bytes() -> None:
    numbers = bytes((ALGORITHM_NUMBERS[SINGLE.algorithm], PURPOSE_NUMBERS[SINGLE.purpose]))
    assert binding.resident_id("é" * 150, b"id") == _digest(
        b"openk.wrapping-key.resident\x00" + b"\x00\x00\x01\x2c" + "é".encode() * 150 + b"id"
    )
    assert binding.wrapped_id(SINGLE, b"context") == _digest(b"openk.wrapping-key.wrapped\x00" + numbers + b"context")


def _digest(named: bytes) -> bytes:
    return hashlib.sha256(named).digest()[:16]


def _blob(wrapped: int, way: Wrap = Wrap.KWP, spec: KeySpec = SINGLE) -> bytes:
    return binding.assemble(binding.header(spec, bytes(16), way), bytes(32), bytes(wrapped))


@pytest.mark.parametrize(
    ("wrapped", "fits"), [(0, False), (8, False), (15, False), (16, True), (8192, True), (8200, False)]
)
def test_the_wrapped_part_has_16_to_8192_bytes(wrapped: int, fits: bool) -> None:
    blob = _blob(wrapped)
    if fits:
        assert len(binding.split(blob, SINGLE, bytes(16))[2]) == wrapped
    else:
        with pytest.raises(InvalidCiphertext, match="impossible length"):
            binding.split(blob, SINGLE, bytes(16))


def test_only_one_kwp_blob_has_whole_units_of_eight_bytes() -> None:
    with pytest.raises(InvalidCiphertext, match="impossible length"):
        binding.split(_blob(17), SINGLE, bytes(16))
    ways = frozenset(Wrap)
    assert binding.split(_blob(17, Wrap.CBC), SINGLE, bytes(16), ways)[2] == bytes(17)
    assert binding.split(_blob(17, spec=PAIR), PAIR, bytes(16))[2] == bytes(17), (
        "a pair begins with a length of two bytes"
    )


@pytest.mark.parametrize(("at", "value"), [(0, 0), (0, 2), (1, 0), (1, 5)])
def test_another_format_and_another_way_of_wrapping_are_refused(at: int, value: int) -> None:
    blob = bytearray(_blob(16))
    blob[at] = value
    with pytest.raises(InvalidCiphertext, match="unknown format"):
        binding.split(bytes(blob), SINGLE, bytes(16), frozenset(Wrap))


@pytest.mark.parametrize("joined", [b"\x00\x00rest", b"\x00\x04rest", b"\x00\x05rest", b"\x00\x00"])
def test_half_a_pair_is_none(joined: bytes) -> None:
    with pytest.raises(InvalidCiphertext, match="impossible length"):
        binding.split_pair(joined)


def test_a_blob_of_nothing_but_its_overhead_still_says_what_it_is_for() -> None:
    assert binding.spec_in(_blob(0)) == SINGLE
    assert binding.spec_in(_blob(0)[:-1]) is None


def test_a_tag_that_does_not_match_is_the_ciphertext_s_fault() -> None:
    assert isinstance(binding.unbound(), InvalidCiphertext)
