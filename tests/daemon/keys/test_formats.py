"""The pure formats: what is written comes back, and nothing else is taken for it."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.hierarchy import canonical
from openk_daemon.hierarchy.envelope import HEADER, OVERHEAD, EnvelopeError, Header, Kind, parse
from openk_daemon.hierarchy.names import check_vault, split
from openk_daemon.hierarchy.records import (
    FORMAT,
    IntentBody,
    KeyBody,
    KeyUsageBody,
    KeyVersionBody,
    RecordError,
    SecretBody,
    VaultBody,
    decode,
    encode,
)
from openk_daemon.refusal import Refusal

BODIES = (VaultBody, KeyBody, KeyVersionBody, KeyUsageBody, SecretBody, IntentBody)
parts = st.lists(st.one_of(st.binary(max_size=9), st.text(max_size=5), st.integers(0, (1 << 64) - 1)), max_size=5)


def flat(part: bytes | str | int) -> bytes:
    if isinstance(part, int):
        return part.to_bytes(8, "big")
    return part.encode() if isinstance(part, str) else part


@given(parts, parts)
def test_different_lists_encode_differently(left: list[bytes | str | int], right: list[bytes | str | int]) -> None:
    same = [flat(part) for part in left] == [flat(part) for part in right]
    assert (canonical.encode(*left) == canonical.encode(*right)) is same


def test_moving_a_boundary_changes_the_encoding() -> None:
    cuts = {
        canonical.encode(b"abcd"[:i], b"abcd"[i:j], b"abcd"[j:])
        for i, j in itertools.product(range(5), repeat=2)
        if i <= j
    }
    assert len(cuts) == 15


headers = st.builds(Header, st.sampled_from(Kind), st.binary(min_size=16, max_size=16), st.integers(1, (1 << 32) - 1))


@given(headers, st.binary(min_size=OVERHEAD - HEADER, max_size=100))
def test_headers_come_back(header: Header, rest: bytes) -> None:
    assert parse(header.pack() + rest) == header
    assert parse(memoryview(header.pack() + rest)) == header


@given(st.binary(max_size=120))
def test_any_bytes_are_an_envelope_or_an_envelope_error(data: bytes) -> None:
    try:
        header = parse(data)
    except EnvelopeError:
        return
    assert header.pack() == data[:HEADER]


@pytest.mark.parametrize(("at", "value"), [(0, 0), (0, 2), (1, 0), (1, 5), (2, 0), (2, 2)])
def test_unknown_formats_kinds_and_algorithms_are_refused(at: int, value: int) -> None:
    envelope = bytearray(Header(Kind.ENCRYPT, bytes(16), 1).pack() + bytes(28))
    parse(bytes(envelope))
    envelope[at] = value
    with pytest.raises(EnvelopeError):
        parse(bytes(envelope))


def test_version_zero_and_short_envelopes_are_refused() -> None:
    whole = Header(Kind.WRAP, bytes(16), 1).pack() + bytes(28)
    for length in range(OVERHEAD):
        with pytest.raises(EnvelopeError):
            parse(whole[:length])
    with pytest.raises(EnvelopeError):
        parse(whole[:19] + bytes(4) + whole[23:])


@given(
    st.one_of(
        st.builds(
            VaultBody,
            st.just(FORMAT),
            st.text(),
            st.binary(),
            st.integers(0, 1 << 60),
            st.binary(),
            st.binary(),
            st.binary(),
        ),
        st.builds(KeyVersionBody, st.just(FORMAT), st.integers(0, 1 << 60), st.binary(), st.none() | st.binary()),
        st.builds(KeyUsageBody, st.just(FORMAT), st.integers(0, 1 << 60)),
        st.builds(
            SecretBody, st.just(FORMAT), st.text(), st.binary(), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)
        ),
        st.builds(IntentBody, st.just(FORMAT), st.text(), st.binary()),
        st.builds(
            KeyBody,
            st.just(FORMAT),
            st.text(),
            st.binary(),
            st.text(),
            st.text(),
            st.text(),
            st.integers(0, 9),
            st.integers(0, 9),
        ),
    )
)
def test_record_bodies_come_back(
    body: VaultBody | KeyVersionBody | KeyUsageBody | SecretBody | IntentBody | KeyBody,
) -> None:
    assert decode(type(body), encode(body)) == body


@given(st.sampled_from(BODIES), st.binary(max_size=60))
def test_any_bytes_are_a_body_or_a_record_error(kind: type[VaultBody], data: bytes) -> None:
    with suppress(RecordError):
        decode(kind, data)


def test_bodies_of_other_formats_are_refused() -> None:
    with pytest.raises(RecordError, match="format 2"):
        decode(KeyUsageBody, encode(KeyUsageBody(2, 1)))
    with pytest.raises(RecordError):
        decode(KeyUsageBody, b"\x93\x01\x01\x01")  # one element too many


components = st.from_regex(r"[A-Za-z0-9_]{1,20}", fullmatch=True)


@given(components, st.lists(components, min_size=1, max_size=4))
def test_names_split_at_the_first_slash(vault: str, rest: list[str]) -> None:
    assert split("/".join([vault, *rest])) == (vault, "/".join(rest))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "v",
        "/k",
        "v/",
        "v//k",
        "v/k/",
        "v/.hidden",
        "v/..",
        "v/a b",
        "v/ü",
        "v/a\n",
        "v/\0",
        "v" * 65 + "/k",
        "v/" + "k" * 255,
        "v/a.",
    ],
)
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(Refusal) as refusal:
        split(name)
    assert refusal.value.code.name == "request.invalid"


@pytest.mark.parametrize("name", ["", "a/b", "v" * 65, ".", "a\n", "é"])
def test_bad_vault_names_are_refused(name: str) -> None:
    with pytest.raises(Refusal):
        check_vault(name)
