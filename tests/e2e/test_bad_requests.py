"""Requests that are well formed and wrong: each a typed error that says what to do, none an effect."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

import openk
from openk.wire.codes import CODES
from tests.support.daemon import RunningDaemon

AES, OTHER, ELSEWHERE = "bad/aes", "bad/other", "bad-elsewhere/aes"


@pytest.fixture(scope="module", autouse=True)
def keys(daemon: RunningDaemon) -> Iterator[None]:
    with daemon.client() as client:
        for vault in ("bad", "bad-elsewhere"):
            client.vault.create(vault)
        for key in (AES, OTHER, ELSEWHERE):
            client.key.create(key, "aes-256-gcm")
        client.key.create("bad/wrap", "aes-256-gcm", purpose="wrap")
        client.key.create("bad/sign", "p-256")
        client.key.create("bad/mac", "hmac-sha-256")
        client.key.create("bad/agree", "p-256", purpose="agree")
        client.key.rotate(OTHER)
        client.secret.put("bad/secret", b"value")
    yield
    with daemon.client() as client:
        assert client.system.ping(b"unharmed") == b"unharmed"
        value = client.secret.get("bad/secret").value
        assert value is not None
        assert bytes(value) == b"value"


Act = Callable[[openk.Client], object]
MISTAKES: dict[str, tuple[str, Act]] = {
    "unknown vault": ("vault.unknown", lambda client: client.key.encrypt("nowhere/key", b"")),
    "unknown vault of a secret": ("vault.unknown", lambda client: client.secret.get("nowhere/secret")),
    "unknown key": ("key.unknown", lambda client: client.key.encrypt("bad/nothing", b"")),
    "unknown version": ("key.version_unknown", lambda client: client.key.encrypt(AES, b"", version=9)),
    "unknown version to verify with": ("key.version_unknown", lambda client: client.key.public("bad/sign", version=7)),
    "unknown secret": ("secret.unknown", lambda client: client.secret.get("bad/nothing")),
    "unknown version of a secret": (
        "secret.version_unknown",
        lambda client: client.secret.get("bad/secret", version=9),
    ),
    "vault that exists": ("vault.exists", lambda client: client.vault.create("bad")),
    "key that exists": ("key.exists", lambda client: client.key.create(AES, "aes-256-gcm")),
    "name with a mistake": ("request.invalid", lambda client: client.vault.create("Bad Vault/..")),
    "name of a key without a vault": ("request.invalid", lambda client: client.key.encrypt("aes", b"")),
    "algorithm that is none": ("request.invalid", lambda client: client.key.create("bad/new", "rot13")),
    "algorithm the token lacks": (
        "key.unsupported",
        lambda client: client.key.create("bad/new", "x25519", protection="resident"),
    ),
    "ML-KEM-512": ("key.unsupported", lambda client: client.key.create("bad/new", "ml-kem-512")),
    "purpose that does not fit": (
        "key.unsuitable",
        lambda client: client.key.create("bad/new", "aes-256-gcm", purpose="sign"),
    ),
    "key for another purpose": ("key.unsuitable", lambda client: client.key.sign(AES, b"")),
    "encryption with a wrapping key": ("key.unsuitable", lambda client: client.key.encrypt("bad/wrap", b"")),
    "digest of a wrong length": (
        "key.input_invalid",
        lambda client: client.key.sign("bad/sign", b"short", prehashed=True),
    ),
    "point that is none": ("key.input_invalid", lambda client: client.key.agree("bad/agree", b"\x04" + bytes(64))),
    "signature that is none": ("key.signature_invalid", lambda client: client.key.verify("bad/sign", b"", b"?")),
    "MAC that is none": ("key.mac_invalid", lambda client: client.key.verify_mac("bad/mac", b"", bytes(32))),
    "MAC cut short": (
        "key.mac_invalid",
        lambda client: client.key.verify_mac("bad/mac", b"", client.key.mac("bad/mac", b"").mac[:8]),
    ),
    "secret that changed": ("secret.conflict", lambda client: client.secret.put("bad/secret", b"x", expected=0)),
    "entry that is not there": ("audit.unknown_entry", lambda client: client.audit.prove(1 << 40)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_has_its_name_and_is_recorded(client: openk.Client, name: str) -> None:
    code, act = MISTAKES[name]
    with pytest.raises(openk.Error) as refused:
        act(client)
    assert refused.value.code == code
    assert refused.value.message
    assert CODES[code].advice
    entries = [json.loads(entry.entry) for entry in client.audit.tail(limit=10)]
    found = [entry for entry in entries if entry.get("outcome") == code]
    assert found
    assert refused.value.request in {entry.get("request") for entry in found}


def test_too_much_is_refused_before_it_is_sent(client: openk.Client) -> None:
    with pytest.raises(openk.Error) as refused:
        client.key.encrypt(AES, bytes(2 << 20))
    assert refused.value.code == "request.too_large"
    assert client.key.encrypt(AES, bytes(1 << 18)).version == 1


def _flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def refused(client: openk.Client, key: str, ciphertext: bytes, aad: bytes = b"aad") -> str:
    with pytest.raises(openk.Error) as error:
        client.key.decrypt(key, ciphertext, aad=aad)
    return error.value.code


def test_a_ciphertext_opens_only_as_what_it_is(client: openk.Client) -> None:
    sealed = client.key.encrypt(AES, b"4111", aad=b"aad").ciphertext
    older = client.key.encrypt(OTHER, b"4111", aad=b"aad", version=1).ciphertext
    wrapped = client.key.wrap("bad/wrap", b"k" * 32, aad=b"aad").wrapped
    another_version = older[:19] + (2).to_bytes(4, "big") + older[23:]
    no_version = older[:19] + (9).to_bytes(4, "big") + older[23:]
    assert refused(client, AES, sealed, b"another aad") == "key.ciphertext_invalid"
    assert refused(client, AES, sealed, b"") == "key.ciphertext_invalid"
    assert refused(client, OTHER, sealed) == "key.ciphertext_invalid"
    assert refused(client, ELSEWHERE, sealed) == "key.ciphertext_invalid"
    assert refused(client, OTHER, another_version) == "key.ciphertext_invalid"
    assert refused(client, OTHER, no_version) in {"key.ciphertext_invalid", "key.version_unknown"}
    assert refused(client, AES, wrapped) == "key.ciphertext_invalid"
    with pytest.raises(openk.Error, match=r"key\.ciphertext_invalid"):
        client.key.unwrap("bad/wrap", sealed, aad=b"aad")
    for cut in (b"", sealed[:1], sealed[:23], sealed[:50], sealed[:-1], sealed + b"\0"):
        assert refused(client, AES, cut) == "key.ciphertext_invalid"
    assert bytes(client.key.decrypt(AES, sealed, aad=b"aad").plaintext) == b"4111"
    assert bytes(client.key.decrypt(OTHER, older, aad=b"aad").plaintext) == b"4111"


@pytest.mark.parametrize("protection", ["wrapped", "resident", "cached"])
def test_no_bit_of_a_ciphertext_may_change(client: openk.Client, protection: str) -> None:
    key = f"bad/flip-{protection}"
    client.key.create(key, "aes-256-gcm", protection=protection)
    sealed = client.key.encrypt(key, b"4111", aad=b"aad").ciphertext
    for place in range(len(sealed)):
        assert refused(client, key, _flip(sealed, place)) in {"key.ciphertext_invalid", "key.version_unknown"}, place
    assert bytes(client.key.decrypt(key, sealed, aad=b"aad").plaintext) == b"4111"


def test_one_bad_item_spoils_no_other(client: openk.Client) -> None:
    sealed = client.key.encrypt(AES, b"4111").ciphertext
    answers = client.key.decrypt_many(AES, [sealed, _flip(sealed, 40), b"", sealed])
    codes = [answer.code if isinstance(answer, openk.Error) else "ok" for answer in answers]
    assert codes == ["ok", "key.ciphertext_invalid", "key.ciphertext_invalid", "ok"]


def test_no_client_makes_metrics(daemon: RunningDaemon) -> None:
    """Names that clients invent become labels of nothing: the number of series stays what it is."""

    def series(client: openk.Client) -> int:
        return sum(not line.startswith("#") for line in client.system.metrics().splitlines())

    def invent(client: openk.Client, number: int) -> None:
        for method, params in (
            (f"key.made-up-{number}", {}),
            ("key.describe", {"key": f"vault-{number}/key-{number}"}),
            ("secret.get", {"secret": f"bad/secret-{number}"}),
        ):
            with pytest.raises(openk.errors.Error):
                client.call(method, params)

    with daemon.client() as client:
        client.system.metrics()
        invent(client, 0)
        before = series(client)
        for number in range(1, 60):
            invent(client, number)
        assert series(client) == before
        assert "made-up" not in client.system.metrics()
