"""key.*: one key, one job. Where `version` is left out, the newest is used.

Each batch form (`..._many`) takes 1 to 256 items and returns, in order, a result or an Error (as a value) for each."""
# ruff: noqa: A002 - parameters are named as the wire names them

from __future__ import annotations

from collections.abc import Iterable

from openk.answers import Misfit, Reply
from openk.calls import items as of
from openk.errors import Error
from openk.operation import Operation, operate, operate_many
from openk.results import (
    Ciphertext,
    DataKey,
    Derived,
    Encapsulated,
    KeyDescription,
    KeyDue,
    KeySummary,
    KeyVersion,
    Mac,
    Plaintext,
    PublicKey,
    Shared,
    Signature,
    Unwrapped,
    Verified,
    Wrapped,
)
from openk.secret import Buffer


def create(
    key: str, algorithm: str, *, purpose: str | None = None, protection: str | None = None
) -> Operation[KeyDescription]:
    """Create a key, VAULT/NAME. `purpose`: the algorithm's usual one when left out. `protection`: wrapped
    (default), resident or cached."""
    return operate("key.create", _description, key=key, algorithm=algorithm, purpose=purpose, protection=protection)


def list_keys(vault: str, *, after: str | None = None, limit: int | None = None) -> Operation[list[KeySummary]]:
    """Keys of a vault in the order of their names, behind `after`; at most 1000."""
    return operate("key.list", _summaries, vault=vault, after=after, limit=limit)


def describe(key: str) -> Operation[KeyDescription]:
    """Describe a key and its versions."""
    return operate("key.describe", _description, key=key)


def rotate(key: str) -> Operation[KeyDescription]:
    """Add a version, used from now on; older ones still open."""
    return operate("key.rotate", _description, key=key)


def public(key: str, *, version: int | None = None) -> Operation[PublicKey]:
    """The public half."""
    return operate("key.public", _public, key=key, version=version)


def encrypt(
    key: str,
    input: Buffer,
    *,
    aad: Buffer | None = None,
    version: int | None = None,
    hash: str | None = None,
) -> Operation[Ciphertext]:
    """Encrypt with an AES key, or to an RSA key (OAEP, with `hash`). `aad` is needed again, unchanged, to open."""
    return operate("key.encrypt", _ciphertext, key=key, version=version, hash=hash, input=input, aad=aad)


def encrypt_many(
    key: str, items: Iterable[of.SealItem | Buffer], *, version: int | None = None, hash: str | None = None
) -> Operation[list[Ciphertext | Error]]:
    """Encrypt many inputs under one key."""
    return operate_many("key.encrypt", _ciphertext, of.spread("input", items), key=key, version=version, hash=hash)


def decrypt(
    key: str,
    ciphertext: Buffer,
    *,
    aad: Buffer | None = None,
    version: int | None = None,
    hash: str | None = None,
) -> Operation[Plaintext]:
    """Decrypt what `encrypt` made; the ciphertext says which version."""
    return operate("key.decrypt", _plaintext, key=key, version=version, hash=hash, ciphertext=ciphertext, aad=aad)


def decrypt_many(
    key: str, items: Iterable[of.OpenItem | Buffer], *, version: int | None = None, hash: str | None = None
) -> Operation[list[Plaintext | Error]]:
    """Decrypt many ciphertexts of one key."""
    return operate_many("key.decrypt", _plaintext, of.spread("ciphertext", items), key=key, version=version, hash=hash)


def reencrypt(key: str, ciphertext: Buffer, *, aad: Buffer | None = None) -> Operation[Ciphertext]:
    """Under the newest version, without showing the plaintext."""
    return operate("key.reencrypt", _ciphertext, key=key, ciphertext=ciphertext, aad=aad)


def reencrypt_many(key: str, items: Iterable[of.OpenItem | Buffer]) -> Operation[list[Ciphertext | Error]]:
    """Many ciphertexts under the newest version."""
    return operate_many("key.reencrypt", _ciphertext, of.spread("ciphertext", items), key=key)


def sign(
    key: str,
    input: Buffer,
    *,
    version: int | None = None,
    hash: str | None = None,
    padding: str | None = None,
    prehashed: bool | None = None,
) -> Operation[Signature]:
    """Sign. `padding` (RSA): pss or pkcs1v15. `prehashed`: the input is the digest."""
    return operate(
        "key.sign", _signature, key=key, version=version, hash=hash, padding=padding, prehashed=prehashed, input=input
    )


def sign_many(
    key: str,
    items: Iterable[of.InputItem | Buffer],
    *,
    version: int | None = None,
    hash: str | None = None,
    padding: str | None = None,
    prehashed: bool | None = None,
) -> Operation[list[Signature | Error]]:
    """Sign many inputs."""
    listed = of.spread("input", items)
    return operate_many(
        "key.sign", _signature, listed, key=key, version=version, hash=hash, padding=padding, prehashed=prehashed
    )


def verify(
    key: str,
    input: Buffer,
    signature: Buffer,
    *,
    version: int | None = None,
    hash: str | None = None,
    padding: str | None = None,
    prehashed: bool | None = None,
) -> Operation[Verified]:
    """Verify a signature. Raises KeyFault (key.signature_invalid) for one that is not valid."""
    return operate(
        "key.verify",
        _verified,
        key=key,
        version=version,
        hash=hash,
        padding=padding,
        prehashed=prehashed,
        input=input,
        signature=signature,
    )


def verify_many(
    key: str,
    items: Iterable[of.SignatureItem],
    *,
    version: int | None = None,
    hash: str | None = None,
    padding: str | None = None,
    prehashed: bool | None = None,
) -> Operation[list[Verified | Error]]:
    """Verify many signatures."""
    return operate_many(
        "key.verify", _verified, items, key=key, version=version, hash=hash, padding=padding, prehashed=prehashed
    )


def mac(key: str, input: Buffer, *, version: int | None = None) -> Operation[Mac]:
    """Compute an HMAC."""
    return operate("key.mac", _mac, key=key, version=version, input=input)


def mac_many(
    key: str, items: Iterable[of.InputItem | Buffer], *, version: int | None = None
) -> Operation[list[Mac | Error]]:
    """Compute many HMACs."""
    return operate_many("key.mac", _mac, of.spread("input", items), key=key, version=version)


def verify_mac(key: str, input: Buffer, mac: Buffer, *, version: int | None = None) -> Operation[Verified]:
    """Verify an HMAC. Raises KeyFault (key.mac_invalid) for one that is not valid."""
    return operate("key.verify_mac", _verified, key=key, version=version, input=input, mac=mac)


def verify_mac_many(
    key: str, items: Iterable[of.MacItem], *, version: int | None = None
) -> Operation[list[Verified | Error]]:
    """Verify many HMACs."""
    return operate_many("key.verify_mac", _verified, items, key=key, version=version)


def derive(
    key: str,
    *,
    length: int | None = None,
    mode: str | None = None,
    label: Buffer | None = None,
    context: Buffer | None = None,
    version: int | None = None,
) -> Operation[Derived]:
    """Derive bytes (32 when left out). `mode`: sp800-108-counter (default) or hkdf-expand."""
    return operate(
        "key.derive", _derived, key=key, version=version, mode=mode, length=length, label=label, context=context
    )


def derive_many(
    key: str,
    items: Iterable[of.DeriveItem],
    *,
    length: int | None = None,
    mode: str | None = None,
    version: int | None = None,
) -> Operation[list[Derived | Error]]:
    """Derive bytes for many labels or contexts."""
    return operate_many("key.derive", _derived, items, key=key, version=version, mode=mode, length=length)


def wrap(key: str, input: Buffer, *, aad: Buffer | None = None, version: int | None = None) -> Operation[Wrapped]:
    """Wrap key bytes of yours."""
    return operate("key.wrap", _wrapped, key=key, version=version, input=input, aad=aad)


def wrap_many(
    key: str, items: Iterable[of.SealItem | Buffer], *, version: int | None = None
) -> Operation[list[Wrapped | Error]]:
    """Wrap the bytes of many keys."""
    return operate_many("key.wrap", _wrapped, of.spread("input", items), key=key, version=version)


def unwrap(key: str, wrapped: Buffer, *, aad: Buffer | None = None) -> Operation[Unwrapped]:
    """Unwrap what `wrap` or `data_key` made."""
    return operate("key.unwrap", _unwrapped, key=key, wrapped=wrapped, aad=aad)


def unwrap_many(key: str, items: Iterable[of.UnwrapItem | Buffer]) -> Operation[list[Unwrapped | Error]]:
    """Unwrap many."""
    return operate_many("key.unwrap", _unwrapped, of.spread("wrapped", items), key=key)


def data_key(
    key: str,
    *,
    length: int | None = None,
    wrapped_only: bool | None = None,
    aad: Buffer | None = None,
    version: int | None = None,
) -> Operation[DataKey]:
    """Make a data key of 16 to 64 bytes (32 when left out): wrapped, and in plaintext unless `wrapped_only`."""
    return operate(
        "key.data_key", _data_key, key=key, version=version, length=length, wrapped_only=wrapped_only, aad=aad
    )


def data_key_many(
    key: str,
    items: Iterable[of.DataKeyItem],
    *,
    length: int | None = None,
    wrapped_only: bool | None = None,
    version: int | None = None,
) -> Operation[list[DataKey | Error]]:
    """Make many data keys: one for each item, {} for one without AAD."""
    return operate_many(
        "key.data_key", _data_key, items, key=key, version=version, length=length, wrapped_only=wrapped_only
    )


def agree(key: str, public: Buffer, *, version: int | None = None) -> Operation[Shared]:
    """Diffie-Hellman with another's public key: SubjectPublicKeyInfo DER, or the raw point."""
    return operate("key.agree", _shared, key=key, version=version, public=public)


def agree_many(
    key: str, items: Iterable[of.AgreeItem | Buffer], *, version: int | None = None
) -> Operation[list[Shared | Error]]:
    """Diffie-Hellman with many public keys."""
    return operate_many("key.agree", _shared, of.spread("public", items), key=key, version=version)


def encapsulate(key: str, *, version: int | None = None) -> Operation[Encapsulated]:
    """Make a shared secret for an ML-KEM key (FIPS 203)."""
    return operate("key.encapsulate", _encapsulated, key=key, version=version)


def decapsulate(key: str, ciphertext: Buffer, *, version: int | None = None) -> Operation[Shared]:
    """Open a shared secret."""
    return operate("key.decapsulate", _shared, key=key, version=version, ciphertext=ciphertext)


def decapsulate_many(
    key: str, items: Iterable[of.DecapsulateItem | Buffer], *, version: int | None = None
) -> Operation[list[Shared | Error]]:
    """Open many shared secrets."""
    return operate_many("key.decapsulate", _shared, of.spread("ciphertext", items), key=key, version=version)


def _description(reply: Reply) -> KeyDescription:
    versions = [
        KeyVersion(one.integer("version"), one.text("created"), one.integer("uses") if one.has("uses") else None)
        for one in reply.replies("versions")
    ]
    one = _summary(reply)
    return KeyDescription(one.key, one.algorithm, one.purpose, one.protection, one.version, versions, one.due)


def _summary(reply: Reply) -> KeySummary:
    return KeySummary(
        reply.text("key"),
        reply.text("algorithm"),
        reply.text("purpose"),
        reply.text("protection"),
        reply.integer("version"),
        _due(Reply(reply.map("due"))) if reply.has("due") else None,
    )


def _due(reply: Reply) -> KeyDue:
    return KeyDue(reply.optional_text("at"), reply.text("rule"), reply.text("action"))


def _summaries(reply: Reply) -> list[KeySummary]:
    return [_summary(one) for one in reply.replies("keys")]


def _public(reply: Reply) -> PublicKey:
    return PublicKey(reply.text("algorithm"), reply.data("public"), reply.text("pem"), reply.integer("version"))


def _ciphertext(reply: Reply) -> Ciphertext:
    return Ciphertext(reply.data("ciphertext"), reply.integer("version"))


def _plaintext(reply: Reply) -> Plaintext:
    return Plaintext(reply.secret("plaintext"), reply.integer("version"))


def _signature(reply: Reply) -> Signature:
    return Signature(reply.data("signature"), reply.integer("version"))


def _verified(reply: Reply) -> Verified:
    if not reply.flag("valid"):
        raise Misfit("valid")
    return Verified(reply.integer("version"))


def _mac(reply: Reply) -> Mac:
    return Mac(reply.data("mac"), reply.integer("version"))


def _derived(reply: Reply) -> Derived:
    return Derived(reply.secret("derived"), reply.integer("version"))


def _wrapped(reply: Reply) -> Wrapped:
    return Wrapped(reply.data("wrapped"), reply.integer("version"))


def _unwrapped(reply: Reply) -> Unwrapped:
    return Unwrapped(reply.secret("output"), reply.integer("version"))


def _data_key(reply: Reply) -> DataKey:
    plaintext = reply.secret("plaintext") if reply.has("plaintext") else None
    return DataKey(reply.data("wrapped"), plaintext, reply.integer("version"))


def _shared(reply: Reply) -> Shared:
    return Shared(reply.secret("shared"), reply.integer("version"))


def _encapsulated(reply: Reply) -> Encapsulated:
    return Encapsulated(reply.data("ciphertext"), reply.secret("shared"), reply.integer("version"))
