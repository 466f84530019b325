"""What the fake daemon of the transcripts answers, and the files that lie beside them."""

from __future__ import annotations

from collections.abc import Mapping

from openk.wire.methods import METHODS
from tests.support.fake_daemon import Answer, Params, Refusal

FILES = {
    "card.txt": b"4111 1111 1111 1111\n",
    "card.sealed": b"\x01sealed:" + b"4111 1111 1111 1111\n",
    "binary": bytes(range(16)),
    "password": b"hunter2\n",
    "app.tar": b"an archive",
    "app.tar.sig": b"\x30\x06signed",
    "params.json": b'{"key": "payments/card", "items": [{"input_base64": "b25l"}, {"input_base64": "dHdv"}]}',
    "broken.json": b'{"password": "hunter2"',
}

CARD = {
    "key": "payments/card",
    "algorithm": "aes-256-gcm",
    "purpose": "encrypt",
    "protection": "wrapped",
    "version": 2,
    "versions": [
        {"version": 1, "created": "2026-01-02T03:04:05Z", "uses": 17},
        {"version": 2, "created": "2026-02-03T04:05:06Z", "uses": 0},
    ],
}
_PEM = "-----BEGIN PUBLIC KEY-----\nMFkwEw==\n-----END PUBLIC KEY-----\n"
_SECRETS: dict[str, dict[str, object]] = {
    "payments/db": {"value": b"hunter2", "version": 3, "created": "2026-01-02T03:04:05Z"},
    "payments/tls": {"value": bytes(range(16)), "version": 1, "created": "2026-01-02T03:04:05Z"},
    "payments/login": {
        "fields": {"user": b"alice", "password": b"hunter2", "seed": b"\x00\xff"},
        "version": 1,
        "created": "2026-01-02T03:04:05Z",
    },
}


def _encrypt(params: Params) -> Mapping[str, object]:
    if items := params.get("items"):
        assert isinstance(items, list)
        return {"results": [_encrypt({"key": params["key"], **item}) for item in items]}
    given = params["input"]
    assert isinstance(given, bytes)
    return {"ciphertext": b"\x01sealed:" + given, "version": 2}


def _decrypt(params: Params) -> Mapping[str, object] | Refusal:
    given = params["ciphertext"]
    assert isinstance(given, bytes)
    if params.get("aad") or not given.startswith(b"\x01sealed:"):
        return Refusal("key.ciphertext_invalid")
    return {"plaintext": given.removeprefix(b"\x01sealed:"), "version": 2}


def _describe(params: Params) -> Mapping[str, object] | Refusal:
    if params["key"] == "payments/card":
        return CARD
    return Refusal("key.unknown", f"There is no key {params['key']}.", details={"key": params["key"]})


def _get(params: Params) -> Mapping[str, object] | Refusal:
    return _SECRETS.get(str(params["secret"]), Refusal("secret.unknown"))


def _put(params: Params) -> Mapping[str, object] | Refusal:
    if params.get("expected") == 9:
        return Refusal("secret.conflict", details={"version": 3})
    held = params.get("value", params.get("fields"))
    sizes = {name: len(part) for name, part in held.items()} if isinstance(held, dict) else len(held)  # type: ignore[arg-type]
    return {"secret": params["secret"], "version": 4, "held": sizes}


def _verify(params: Params) -> Mapping[str, object] | Refusal:
    good = params["input"] == FILES["app.tar"] and params["signature"] == FILES["app.tar.sig"]
    return {"valid": True, "version": 1} if good else Refusal("key.signature_invalid")


ANSWERS: dict[str, Answer] = {
    "system.health": {
        "status": "degraded",
        "components": {"store": {"status": "ok"}, "hsm": {"status": "restarting", "lanes": 1}},
    },
    "system.methods": {
        "methods": [{"name": name, "summary": METHODS[name].summary} for name in ("key.sign", "key.verify")]
    },
    "system.metrics": {"text": "# TYPE openk_requests counter\nopenk_requests_total 3\n"},
    "system.ping": lambda params: {"echo": params["echo"]} if "echo" in params else {},
    "vault.create": lambda params: {"vault": params["vault"], "created": "2026-01-02T03:04:05Z"},
    "vault.list": {"vaults": []},
    "key.create": lambda params: {**CARD, **params, "version": 1, "versions": []},
    "key.describe": _describe,
    "key.list": lambda params: {
        "keys": [
            {name: CARD[name] for name in ("key", "algorithm", "version")},
            {"key": "payments/\x1b[31mred", "algorithm": "p-256", "version": 1},
        ][: int(str(params.get("limit", 2)))]
    },
    "key.public": {"public": b"0Y0\x13", "pem": _PEM, "version": 1, "algorithm": "p-256"},
    "key.encrypt": _encrypt,
    "key.decrypt": _decrypt,
    "key.sign": {"signature": FILES["app.tar.sig"], "version": 1},
    "key.verify": _verify,
    "key.data_key": lambda params: {
        "wrapped": b"wrapped",
        "version": 1,
        **({} if params.get("wrapped_only") else {"plaintext": b"K" * 32}),
    },
    "random.bytes": lambda params: {"bytes": b"\xab" * int(str(params.get("length", 32)))},
    "secret.put": _put,
    "secret.get": _get,
    "secret.delete": lambda params: {"secret": params["secret"], "deleted": 3},
    "policy.explain": {
        "allowed": False,
        "policies": [],
        "errors": [],
        "flips": ["principal.unit == shop.service"],
        "facts": {"uid": 1000, "unit": None},
    },
    "policy.reload": Refusal("policy.denied"),
    "audit.head": {"checkpoint": "openk.local/audit\n17\nabc=\n", "signed_size": 17, "size": 17, "public": b"0*0\x05"},
    "audit.tail": {
        "entries": [
            {"index": 16, "entry": '{"time":"2026-01-02T03:04:05Z","method":"key.encrypt","outcome":"allowed"}'}
        ]
    },
    "key.rotate": Refusal("hsm.unavailable", retry_after=2.5),
}
