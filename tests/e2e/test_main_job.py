"""The main job, whole: every method of the table, through the SDK, against the real daemon and SoftHSM2."""

from __future__ import annotations

import hashlib
from typing import TypeVar

import pytest

import openk
from openk import errors
from openk.operation import Operation
from openk.wire.methods import METHODS
from tests.support.daemon import RunningDaemon

R = TypeVar("R")

ALGORITHMS = ("p-256", "p-384", "p-521", "rsa-2048", "ed25519", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87")


class Recording(openk.Client):
    """Remembers which methods were asked for."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self.seen: set[str] = set()
        super().__init__(daemon.socket, timeout=20)

    def run_within(self, operation: Operation[R], timeout: float | None) -> R:
        self.seen.add(operation.method)
        return super().run_within(operation, timeout)


def test_every_method_does_its_work(daemon: RunningDaemon) -> None:
    client = Recording(daemon)
    with client:
        _system(client)
        client.vault.create("main-job")
        _ciphers(client)
        _signatures(client)
        _macs_and_derivation(client)
        _key_bytes(client)
        _agreement(client)
        _secrets(client)
        _listings(client)
        _policies_and_audit(client)
        _hsms(client)
        _backups(client)
        assert client.seen == set(METHODS) - {"system.seal", "system.unseal"}  # they close the daemon: tests/security


def _system(client: openk.Client) -> None:
    hello = client.system.hello()
    assert hello.limits["in_flight"] == 64
    assert client.system.ping(b"echo") == b"echo"
    assert [entry["name"] for entry in client.system.methods()] == list(METHODS)
    assert client.system.health().status == "ok"
    hsm = client.system.info()["hsm"]
    assert isinstance(hsm, dict)
    assert hsm["label"] == "openk-dev"
    assert "openk_requests_total{" in client.system.metrics()
    assert any(setting.key == "log.level" for setting in client.system.config())
    assert client.system.config_changes().changes == []
    assert "requests" in client.system.log_level()
    assert client.system.history(signal="health").signals[0].now == 0
    assert {alert.alert for alert in client.system.alerts().alerts} > {"hsm_down", "audit_refusing"}
    assert client.system.events().lost == 0
    first, second = client.random.bytes(64), client.random.bytes(64)
    assert len(first) == 64
    assert bytes(first) != bytes(second)


def _backups(client: openk.Client) -> None:
    made = client.backup.create()
    assert made.state == "made"
    assert made.backup in {backup.backup for backup in client.backup.list().backups}


def _hsms(client: openk.Client) -> None:
    (hsm,) = client.hsm.list()
    (status,) = client.hsm.status()
    assert (hsm.state, hsm.label, status.advice) == ("up", "openk-dev", "")
    assert client.hsm.info(hsm.hsm).serial == hsm.serial
    assert client.hsm.objects().unknown == 0
    assert client.hsm.selftest().passed
    assert len(client.hsm.bench("p-256", count=5).times) == 5
    with pytest.raises(errors.KeyFault, match="does not vouch"):
        client.hsm.attest("main-job/aes-resident")


def _ciphers(client: openk.Client) -> None:
    for protection in ("wrapped", "resident", "cached"):
        key = f"main-job/aes-{protection}"
        assert client.key.create(key, "aes-256-gcm", protection=protection).protection == protection
        sealed = client.key.encrypt(key, b"4111", aad=b"customer 17")
        assert bytes(client.key.decrypt(key, sealed.ciphertext, aad=b"customer 17").plaintext) == b"4111"
        assert client.key.rotate(key).version == 2
        assert bytes(client.key.decrypt(key, sealed.ciphertext, aad=b"customer 17").plaintext) == b"4111"
        newer = client.key.reencrypt(key, sealed.ciphertext, aad=b"customer 17")
        assert newer.version == 2
        assert bytes(client.key.decrypt(key, newer.ciphertext, aad=b"customer 17").plaintext) == b"4111"
        assert client.key.encrypt(key, b"old", version=1).version == 1
        described = client.key.describe(key)
        assert [one.version for one in described.versions] == [1, 2]
        many = client.key.encrypt_many(key, [b"one", {"input": b"two", "aad": b"2"}])
        ciphertexts = [one.ciphertext for one in many if not isinstance(one, openk.Error)]
        opened = client.key.decrypt_many(key, [*ciphertexts, b"three"])
        assert not isinstance(opened[0], openk.Error)
        assert bytes(opened[0].plaintext) == b"one"
        assert [getattr(one, "code", "") for one in opened[1:]] == ["key.ciphertext_invalid"] * 2


def _signatures(client: openk.Client) -> None:
    for algorithm in ALGORITHMS:
        key = f"main-job/sign-{algorithm}"
        resident = algorithm == "ed25519"  # SoftHSM2 cannot wrap it
        client.key.create(key, algorithm, purpose="sign", protection="resident" if resident else None)
        assert "BEGIN PUBLIC KEY" in client.key.public(key).pem
        signature = client.key.sign(key, b"document").signature
        assert client.key.verify(key, b"document", signature).version == 1
        with pytest.raises(errors.KeyFault, match="not valid"):
            client.key.verify(key, b"another", signature)
    digest = hashlib.sha256(b"document").digest()
    prehashed = client.key.sign("main-job/sign-p-256", digest, prehashed=True).signature
    assert client.key.verify("main-job/sign-p-256", b"document", prehashed)


def _macs_and_derivation(client: openk.Client) -> None:
    for algorithm, length in (("hmac-sha-256", 32), ("hmac-sha-384", 48), ("hmac-sha-512", 64)):
        key = f"main-job/mac-{algorithm}"
        client.key.create(key, algorithm)
        mac = client.key.mac(key, b"message").mac
        assert len(mac) == length
        assert client.key.verify_mac(key, b"message", mac).version == 1
        with pytest.raises(errors.KeyFault, match="MAC"):
            client.key.verify_mac(key, b"massage", mac)
        key = f"main-job/derive-{algorithm}"
        client.key.create(key, algorithm, purpose="derive")
        counter = client.key.derive(key, length=100, label=b"session", context=b"7").derived
        expand = client.key.derive(key, length=100, mode="hkdf-expand", context=b"7").derived
        assert len(counter) == len(expand) == 100
        assert bytes(counter) != bytes(expand)
        assert bytes(client.key.derive(key, length=100, label=b"session", context=b"7").derived) == bytes(counter)


def _key_bytes(client: openk.Client) -> None:
    key = "main-job/wrap"
    client.key.create(key, "aes-256-gcm", purpose="wrap")
    wrapped = client.key.wrap(key, b"k" * 32, aad=b"for").wrapped
    assert bytes(client.key.unwrap(key, wrapped, aad=b"for").output) == b"k" * 32
    data_key = client.key.data_key(key, length=48)
    assert data_key.plaintext is not None
    assert bytes(client.key.unwrap(key, data_key.wrapped).output) == bytes(data_key.plaintext)
    assert client.key.data_key(key, wrapped_only=True).plaintext is None


def _agreement(client: openk.Client) -> None:
    for algorithm in ("p-256", "x25519"):
        ours, theirs = f"main-job/{algorithm}-ours", f"main-job/{algorithm}-theirs"
        for key in (ours, theirs):
            client.key.create(key, algorithm, purpose="agree")
        shared = client.key.agree(ours, client.key.public(theirs).public).shared
        assert bytes(shared) == bytes(client.key.agree(theirs, client.key.public(ours).public).shared)
    for algorithm in ("ml-kem-768", "ml-kem-1024"):
        key = f"main-job/{algorithm}"
        client.key.create(key, algorithm)
        sent = client.key.encapsulate(key)
        assert bytes(client.key.decapsulate(key, sent.ciphertext).shared) == bytes(sent.shared)


def _secrets(client: openk.Client) -> None:
    name = "main-job/database/password"
    assert client.secret.put(name, b"hunter2", expected=0).version == 1
    assert client.secret.put(name, fields={"user": b"u", "password": b"p"}).version == 2
    fields = client.secret.get(name).fields
    assert fields is not None
    assert {field: bytes(value) for field, value in fields.items()} == {"user": b"u", "password": b"p"}
    value = client.secret.get(name, version=1).value
    assert value is not None
    assert bytes(value) == b"hunter2"
    assert [one.secret for one in client.secret.list("main-job")] == [name]
    with pytest.raises(errors.Error) as conflict:
        client.secret.put(name, b"late", expected=1)
    assert conflict.value.code == "secret.conflict"
    assert client.secret.delete(name).deleted == 2
    with pytest.raises(errors.Error) as gone:
        client.secret.get(name)
    assert gone.value.code == "secret.unknown"


def _listings(client: openk.Client) -> None:
    assert client.vault.describe("main-job").vault == "main-job"
    assert "main-job" in [one.vault for one in client.vault.list()]
    keys = client.key.list("main-job")
    first = client.key.list("main-job", limit=5)
    rest = client.key.list("main-job", after=first[-1].key)
    assert [one.key for one in [*first, *rest]] == [one.key for one in keys]
    assert len(keys) == 3 + len(ALGORITHMS) + 6 + 1 + 4 + 2


def _policies_and_audit(client: openk.Client) -> None:
    explained = client.policy.explain("key.decrypt", "main-job/aes-wrapped")
    assert explained.allowed
    assert not client.policy.explain("key.decrypt", "main-job/aes-wrapped", uid=65534).allowed
    epoch = client.policy.reload().epoch
    assert client.policy.reload().epoch == epoch + 1
    head = client.audit.head()
    assert head.size >= head.signed_size > 0
    proof = client.audit.prove(0)
    assert proof.size <= head.size
    entries = client.audit.tail(limit=3)
    assert [one.index for one in entries] == sorted(one.index for one in entries)
    assert "policy.reload" in " ".join(one.entry for one in client.audit.tail(limit=20))
