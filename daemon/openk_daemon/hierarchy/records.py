"""What is inside sealed records: msgpack arrays, in the order drawn, decoded strictly.

Every record's body is an envelope of the kind RECORD (see `envelope`) but for "secret-version", which has a
layout of its own (openk_daemon.secrets.payload). Inside the envelope:

    vault         [format, name, vault id (16), created, kw blob, data blob, mac blob, HSM]
    key           [format, name, key id (16), algorithm, purpose, protection, newest version, created]
    key-version   [format, created, key object or material, public key (SubjectPublicKeyInfo DER) or nil]
    key-usage     [format, uses reserved so far]
    secret        [format, name, secret id (16), last version ever, current version, created of the current one]
    intent        [format, label, id, HSM] of a token object that is about to be made
    hsm-notice    [format, number] of the last notice of a device that the audit log has (openk_daemon.notices)

A vault's three blobs are empty where its keys are token objects (then its data key is aes-256-ccm).
HSM: the configured name of the one that has the key or object, empty for the first; records from before there could be
several end without it. Times are milliseconds since 1970-01-01T00:00:00Z. Names are the part behind the vault.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

FORMAT: Final = 1

VAULT: Final = "vault"
KEY: Final = "key"
KEY_VERSION: Final = "key-version"
KEY_USAGE: Final = "key-usage"
SECRET: Final = "secret"  # noqa: S105 - the name of a kind of record
SECRET_VERSION: Final = "secret-version"  # noqa: S105 - likewise
INTENT: Final = "intent"
HSM_NOTICE: Final = "hsm-notice"

UNAUDITED: Final = frozenset({KEY_USAGE, INTENT})
"""Kinds that are written without an audit record of their own: counters ahead of use, the journal of token objects."""


class RecordError(ValueError):
    """The plaintext of a record is not what this version of openk writes."""


class _Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    format: int


class VaultBody(_Body, frozen=True):
    name: str
    id: bytes
    created: int
    kw: bytes
    data: bytes
    mac: bytes
    hsm: str = ""


class KeyBody(_Body, frozen=True):
    name: str
    id: bytes
    algorithm: str
    purpose: str
    protection: str
    newest: int
    created: int


class KeyVersionBody(_Body, frozen=True):
    created: int
    key: bytes
    public: bytes | None


class KeyUsageBody(_Body, frozen=True):
    reserved: int


class SecretBody(_Body, frozen=True):
    name: str
    id: bytes
    last: int
    current: int
    created: int


class IntentBody(_Body, frozen=True):
    label: str
    id: bytes
    hsm: str = ""


class NoticeBody(_Body, frozen=True):
    number: int


B = TypeVar("B", bound=_Body)

_encoder: Final = msgspec.msgpack.Encoder()


def encode(body: _Body) -> bytes:
    return _encoder.encode(body)


def decode(type_: type[B], plain: bytes) -> B:
    """Raises RecordError: it opened, so openk wrote it, but not this version of openk."""
    try:
        body = msgspec.msgpack.decode(plain, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecordError(f"not a {type_.__name__}") from error
    if body.format != FORMAT:
        raise RecordError(f"format {body.format} of {type_.__name__}")
    return body
