"""docs/formats.md, followed by somebody who has the keys and `cryptography`, and has never seen openk's code.

Nothing here imports openk: it is the proof that the documents are enough.
"""

from __future__ import annotations

import struct

import msgpack  # type: ignore[import-untyped]  # it has no types
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

HASHES = {"sha-256": hashes.SHA256(), "sha-384": hashes.SHA384(), "sha-512": hashes.SHA512()}


def encode(*parts: bytes | str | int) -> bytes:
    out = b""
    for part in parts:
        piece = part.to_bytes(8, "big") if isinstance(part, int) else part.encode() if isinstance(part, str) else part
        out += struct.pack(">I", len(piece)) + piece
    return out


def open_envelope(key: bytes, envelope: bytes, context: bytes) -> bytes:
    """Any envelope: a client's ciphertext (context = AAD), a record, key material."""
    assert envelope[0] == 1
    assert envelope[2] == 1
    return AESGCM(key).decrypt(envelope[23:35], envelope[35:], envelope[:23] + context)


def open_record(data_key: bytes, kind: str, id_: bytes, version: int, body: bytes) -> list[object]:
    plain = open_envelope(data_key, body, encode("openk/v1/record", kind, id_, version))
    values = msgpack.unpackb(plain)
    assert isinstance(values, list)
    assert values[0] == 1
    return values


def object_id(mac_key: bytes, vault_id: bytes, kind: str, name: str) -> bytes:
    mac = hmac.HMAC(mac_key, hashes.SHA256())
    mac.update(encode("openk/v1/name", kind, name))
    return vault_id + mac.finalize()


def cached_key(data_key: bytes, vault_id: bytes, key: list[object], version: int, envelope: bytes) -> bytes:
    """The material of a cached key; `key` is the contents of its record."""
    key_id, algorithm, purpose = key[2], key[3], key[4]
    assert isinstance(key_id, bytes)
    assert isinstance(algorithm, str)
    assert isinstance(purpose, str)
    context = encode("openk/v1/material", algorithm, vault_id, key_id, version, purpose)
    return open_envelope(data_key, envelope, context)


def open_secret_version(data_key: bytes, vault_id: bytes, id_: bytes, body: bytes) -> tuple[list[object], list[bytes]]:
    """Segment 0 and the values."""
    form, count, length = struct.unpack_from(">BHH", body)
    assert form == 1
    front, rest = body[: 5 + length], body[5 + length :]
    context = encode("openk/v1/material", "secret", vault_id, id_, 1, "data-key")
    key = open_envelope(data_key, front[5:], context)
    plains = []
    for index in range(count):
        (size,) = struct.unpack_from(">I", rest)
        nonce, sealed, rest = rest[4:16], rest[16 : 32 + size], rest[32 + size :]
        aad = encode("openk/v1/segment", "secret-version", id_, 1, index, front)
        plains.append(AESGCM(key).decrypt(nonce, sealed, aad))
    assert rest == b""
    contents = msgpack.unpackb(plains[0])
    assert isinstance(contents, list)
    return contents, plains[1:]


def derive_counter(key: bytes, hash_: str, length: int, label: bytes, context: bytes) -> bytes:
    return KBKDFHMAC(
        HASHES[hash_], Mode.CounterMode, length, 4, 4, CounterLocation.BeforeFixed, label, context, None
    ).derive(key)


def derive_expand(key: bytes, hash_: str, length: int, info: bytes) -> bytes:
    return HKDFExpand(HASHES[hash_], length, info).derive(key)


def mac(key: bytes, hash_: str, data: bytes) -> bytes:
    context = hmac.HMAC(key, HASHES[hash_])
    context.update(data)
    return context.finalize()
