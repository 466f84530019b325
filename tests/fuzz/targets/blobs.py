"""What openk keeps: envelopes, records, bodies of secrets, wrapped keys. Whatever is taken is written back the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgpack

from openk_daemon.hierarchy import envelope, records
from openk_daemon.hierarchy.envelope import EnvelopeError, Header, Kind
from openk_daemon.hierarchy.records import RecordError
from openk_daemon.secrets import payload
from openk_daemon.secrets.payload import PayloadError
from openk_hsm import binding
from openk_hsm.binding import Wrap
from openk_hsm.errors import InvalidCiphertext
from openk_hsm.seam import Algorithm, KeySpec, Purpose
from openk_hsm.specs import MECHANISMS
from tests.fuzz.target import Target

_VECTORS = Path(__file__).parents[2] / "vectors"
_BODIES = (
    records.VaultBody(1, "v", bytes(16), 1767323045000, b"kw", b"data", b"mac"),
    records.VaultBody(1, "v", bytes(16), 1767323045000, b"", b"", b"", "second"),
    records.KeyBody(1, "k", bytes(16), "p-256", "sign", "wrapped", 1, 1767323045000),
    records.KeyVersionBody(1, 1767323045000, b"blob", b"spki"),
    records.KeyVersionBody(1, 1767323045000, b"blob", None),
    records.KeyUsageBody(1, 4096),
    records.SecretBody(1, "s", bytes(16), 2, 1, 1767323045000),
    records.IntentBody(1, "openk/v", bytes(16)),
    records.NoticeBody(1, 7),
)
_SPECS = (*sorted(MECHANISMS, key=str), KeySpec(Algorithm.AES_256_CBC_HMAC, Purpose.ENCRYPT))
_WRAPPING = bytes(range(16))
_HEADERS = frozenset(
    binding.header(spec, _WRAPPING, wrap) for spec in _SPECS for wrap in Wrap
)


def _vectors(file: str, field: str) -> Iterator[bytes]:
    for vector in json.loads((_VECTORS / file).read_text("utf-8"))["vectors"]:
        if field in vector:
            yield bytes.fromhex(vector[field])


def _envelopes() -> Iterator[bytes]:
    yield from _vectors("ciphertexts.json", "ciphertext")
    yield from _vectors("records.json", "body")
    for kind in Kind:
        yield Header(kind, _WRAPPING, 7).pack() + bytes(envelope.NONCE + envelope.TAG)


def run_envelope(data: bytes) -> None:
    """A header that is taken packs to the very bytes it came from."""
    try:
        header = envelope.parse(memoryview(data))
    except EnvelopeError as error:
        assert str(error).isprintable()  # noqa: PT017 - only where there was one
        return
    assert header.pack() == data[: envelope.HEADER]
    assert header == envelope.parse(data)
    assert len(data) >= envelope.OVERHEAD


def run_records(data: bytes) -> None:
    """A body is taken by what msgpack, too, says it holds, and comes back from its own encoding."""
    for type_ in dict.fromkeys(map(type, _BODIES)):
        try:
            body = records.decode(type_, data)
        except RecordError:
            continue
        assert records.decode(type_, records.encode(body)) == body
        # msgspec takes bin for bytes and str for str, as the oracle does; integral floats and the like it does not take.
        fields = msgpack.unpackb(data)
        again = msgpack.unpackb(records.encode(body))
        assert again[: len(fields)] == fields


def run_payload(data: bytes) -> None:
    """The parts cover the body without a gap, and put together again they are the body."""
    try:
        found = payload.parse(data)
    except PayloadError:
        pass
    else:
        parts = [(bytes(segment.nonce), bytes(segment.sealed)) for segment in found.segments]
        assert payload.assemble(found.front, parts) == data
        assert payload.front(bytes(found.envelope), len(parts)) == found.front
        assert all(len(segment) >= 0 for segment in found.segments)
    for segments in (1, 2, 4):
        try:
            contents = payload.decode_contents(data, segments)
        except PayloadError:
            continue
        again = payload.decode_contents(payload.encode_contents(contents.created, contents.names), segments)
        assert again == contents


def _payloads() -> Iterator[bytes]:
    yield from _vectors("secrets.json", "body")
    yield payload.encode_contents(1767323045000, None)
    yield payload.encode_contents(1767323045000, ["user", "password", "host"])


def run_wrapped_key(data: bytes) -> None:
    """Of all specs at most one takes a blob, the one that its header says, and the parts are the blob."""
    taken: list[KeySpec] = []
    for spec in _SPECS:
        for wraps in (binding.ONLY_KWP, frozenset(Wrap)):
            try:
                head, tag, wrapped = binding.split(data, spec, _WRAPPING, wraps)
            except InvalidCiphertext:
                continue
            assert binding.assemble(head, tag, wrapped) == data
            assert len(tag) == binding.TAG_BYTES
            assert len(wrapped) >= 16
            assert head in _HEADERS
            if wraps != binding.ONLY_KWP:
                taken.append(spec)
            else:
                assert head[1] == Wrap.KWP
            if binding.is_pair(spec):
                with suppress(InvalidCiphertext):
                    assert binding.join_pair(*binding.split_pair(wrapped)) == wrapped
    assert len(taken) <= 1
    said = binding.spec_in(data)
    assert not taken or taken == [said]


def _wrapped_keys() -> Iterator[bytes]:
    for number, spec in enumerate(_SPECS):
        wrap = list(Wrap)[number % len(Wrap)]
        wrapped = binding.join_pair(bytes(24), bytes(40)) if binding.is_pair(spec) else bytes(40)
        yield binding.assemble(binding.header(spec, _WRAPPING, wrap), bytes(32), wrapped)


TARGETS = (
    Target("envelope", run_envelope, _envelopes, (b"\x01\x01\x01", b"\x00\x00\x00\x01"), 160, 20000),
    Target("records", run_records, lambda: map(records.encode, _BODIES), (b"\xc4\x10", b"\x9a", b"\xcf", b"\xc0"), 160, 8000),
    Target("payload", run_payload, _payloads, (b"\x01\x00\x02\x00\x53", b"\x00\x00\x00\x0c"), 400, 15000),
    Target("wrapped-key", run_wrapped_key, _wrapped_keys, tuple(sorted(_HEADERS)), 160, 3000),
)
