"""Somebody with the token, its PIN, docs/formats.md and `cryptography` opens everything, without openk.

The token itself unwraps the vault's data key here, as a key that may be read: SoftHSM2 lets whoever has the PIN do so,
which is why only workers have it. From there on it is tests/support/third_party.py, which imports nothing of openk.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.support.daemon import running_daemon
from tests.support.third_party import cached_key, derive_counter, derive_expand, encode, open_envelope, open_record
from tests.support.tokens import MODULE

OPEN_VAULT = """
import sys, msgpack, pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, ObjectClass
module, pin, context, body = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3]), bytes.fromhex(sys.argv[4])
token = pkcs11.lib(module).get_token(token_label="openk-dev")
with token.open(rw=True, user_pin=pin) as session:
    root = session.get_key(object_class=ObjectClass.SECRET_KEY, label="openk-root-data")
    sealed = GCMParams(body[23:35], body[:23] + context, 128)
    record = msgpack.unpackb(root.decrypt(body[35:], mechanism=Mechanism.AES_GCM, mechanism_param=sealed))
    assert record[0] == 1 and record[1] == "papers"
    wrapping = session.get_key(object_class=ObjectClass.SECRET_KEY, label="openk-root-kw")
    readable = {Attribute.TOKEN: False, Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}
    data = wrapping.unwrap_key(
        ObjectClass.SECRET_KEY, KeyType.AES, record[5][54:], mechanism=Mechanism.AES_KEY_WRAP_PAD, template=readable
    )
    print(record[2].hex(), data[Attribute.VALUE].hex())
"""
"""The vault's record from root's data key in the token; then the vault's own data key, wrapped by root's other key."""


def rows(folder: Path, kind: str) -> list[tuple[bytes, int, bytes]]:
    database = sqlite3.connect(f"file:{folder}/state/store.db?mode=ro", uri=True)
    try:
        return list(database.execute("SELECT id, version, body FROM record WHERE kind = ?", (kind,)))
    finally:
        database.close()


def open_vault(folder: Path) -> tuple[bytes, bytes]:
    """Its id and data key."""
    ((id_, version, body),) = rows(folder, "vault")
    context = encode("openk/v1/record", "vault", id_, version)
    pin = (folder / "pin").read_text().strip()
    command = [sys.executable, "-c", OPEN_VAULT, MODULE, pin, context.hex(), body.hex()]
    environment = {**os.environ, "SOFTHSM2_CONF": str(folder / "softhsm2.conf")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    vault_id, data_key = done.stdout.split()
    return bytes.fromhex(vault_id), bytes.fromhex(data_key)


def materials(folder: Path) -> dict[str, bytes]:
    """The bytes of each cached key, by name."""
    vault_id, data_key = open_vault(folder)
    keys = {id_: open_record(data_key, "key", id_, version, body) for id_, version, body in rows(folder, "key")}
    found: dict[str, bytes] = {}
    for id_, version, body in rows(folder, "key-version"):
        contents = open_record(data_key, "key-version", id_, version, body)
        key = next(key for key in keys.values() if key[2] == id_[:16])
        number = int.from_bytes(id_[16:], "big")
        assert isinstance(contents[2], bytes)
        found[str(key[1])] = cached_key(data_key, vault_id, key, number, contents[2])
    return found


def test_what_openk_made_opens_without_openk(dev_folder: Path, tmp_path: Path) -> None:
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        client.vault.create("papers")
        client.key.create("papers/aes", "aes-256-gcm", protection="cached")
        client.key.create("papers/mac", "hmac-sha-384", protection="cached")
        client.key.create("papers/derive", "hmac-sha-256", purpose="derive", protection="cached")
        sealed = client.key.encrypt("papers/aes", b"4111 1111", aad=b"customer 17").ciphertext
        mac = client.key.mac("papers/mac", b"a message").mac
        counter = bytes(client.key.derive("papers/derive", label=b"disk", context=b"host-7", length=100).derived)
        expand = bytes(client.key.derive("papers/derive", mode="hkdf-expand", context=b"host-7", length=100).derived)
    keys = materials(dev_folder)
    assert open_envelope(keys["aes"], sealed, b"customer 17") == b"4111 1111"
    assert derive_counter(keys["derive"], "sha-256", 100, b"disk", b"host-7") == counter
    assert derive_expand(keys["derive"], "sha-256", 100, b"host-7") == expand
    (tmp_path / "message").write_bytes(b"a message")
    command = [
        "openssl",
        "mac",
        "-digest",
        "SHA384",
        "-macopt",
        f"hexkey:{keys['mac'].hex()}",
        "-in",
        "message",
        "HMAC",
    ]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=True)
    assert bytes.fromhex(told.stdout.strip()) == mac
