"""The main job on a YubiHSM: `openkd --dev` over an emulated device that logs and audits every command."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from yubihsm.defs import ALGORITHM, CAPABILITY
from yubihsm.objects import HmacKey

import openk
from openk import errors
from openk_hsm.yubihsm.setup import AUDITED
from tests.support.daemon import running_daemon
from tests.support.yubihsm import PASSWORD, EmulatedDevice, emulated, initialise

RESIDENT = ("p-256", "p-384", "p-521", "rsa-2048", "ed25519")


@dataclass
class Stand:
    device: EmulatedDevice
    folder: Path
    password: bytes = PASSWORD

    def objects(self) -> list[str]:
        with self.device.session() as session:
            return sorted(str(found.get_info().label) for found in session.list_objects())

    def intrude(self) -> None:
        with self.device.session() as session:
            HmacKey.generate(session, 0, "mine", 1, CAPABILITY.SIGN_HMAC, ALGORITHM.HMAC_SHA256).delete()


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    folder = tmp_path / "dev"
    folder.mkdir(mode=0o700)
    with emulated() as device:
        device.add_authentication_key()
        device.audit(forced=True, commands=AUDITED)
        initialise(device, folder)
        (folder / "token-uri").write_text(device.uri() + "\n")
        yield Stand(device, folder)


def test_the_main_job_and_a_restart(stand: Stand) -> None:
    with running_daemon(stand.folder) as daemon, daemon.client() as client:
        client.vault.create("pay")
        for algorithm in RESIDENT:
            made = client.key.create(f"pay/{algorithm}", algorithm, purpose="sign")
            assert made.protection == "resident"
            signature = client.key.sign(f"pay/{algorithm}", b"document").signature
            assert client.key.verify(f"pay/{algorithm}", b"document", signature).version == 1
        client.key.create("pay/mac", "hmac-sha-256")
        mac = client.key.mac("pay/mac", b"message").mac
        client.key.create("pay/derive", "hmac-sha-512", purpose="derive")
        derived = client.key.derive("pay/derive", length=200, label=b"session").derived
        client.key.create("pay/aes", "aes-256-gcm", protection="cached")
        sealed = client.key.encrypt("pay/aes", b"4111", aad=b"customer 17").ciphertext
        for protection in ("wrapped", None):
            with pytest.raises(errors.Error, match="keeps no wrapped keys") as refused:
                client.key.create("pay/other", "aes-256-gcm", protection=protection)
            assert refused.value.code == "key.unsupported"
        client.key.create("pay/quantum", "ml-dsa-87")
        assert client.key.rotate("pay/p-256").version == 2
        assert client.secret.put("pay/db", b"hunter2").version == 1
        assert client.system.health().status == "ok"
        assert alarms(client) == []
    made_on_device = [label for label in stand.objects() if label.startswith("openk-")]
    assert len(made_on_device) == 4 + 2 + len(RESIDENT) + 2 + 1  # roots, the vault, keys, the rotated one
    with running_daemon(stand.folder) as daemon, daemon.client() as client:
        assert client.key.mac("pay/mac", b"message").mac == mac
        assert bytes(client.key.derive("pay/derive", length=200, label=b"session").derived) == bytes(derived)
        assert bytes(client.key.decrypt("pay/aes", sealed, aad=b"customer 17").plaintext) == b"4111"
        value = client.secret.get("pay/db").value
        assert value is not None
        assert bytes(value) == b"hunter2"
        signature = client.key.sign("pay/quantum", b"document").signature
        assert client.key.verify("pay/quantum", b"document", signature).version == 1
        assert client.secret.delete("pay/db").deleted == 1


def test_another_user_of_the_device_raises_an_alarm_once(stand: Stand) -> None:
    with running_daemon(stand.folder) as daemon, daemon.client() as client:
        assert client.system.health().status == "ok"
        stand.intrude()
        daemon.wait_for("hsm.alarm", seconds=15)
        assert client.system.health().status == "degraded"
        time.sleep(0.5)  # each notice is recorded by itself
        told = alarms(client)
        assert any("opened a session with authentication key 1" in entry for entry in told)
        assert any("used the device" in entry for entry in told)
        line = next(line for line in client.system.metrics().splitlines() if line.startswith("openk_hsm_alarms_total{"))
        assert float(line.split()[-1]) == len(told)
    with running_daemon(stand.folder) as daemon, daemon.client() as client:
        time.sleep(1.0)  # a first look at the device
        assert alarms(client) == told
        assert client.system.health().status == "ok"


def alarms(client: openk.Client) -> list[str]:
    return [one.entry for one in client.audit.tail(limit=100) if '"event":"hsm.notice"' in one.entry]
