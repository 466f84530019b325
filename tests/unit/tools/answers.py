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


_IDLE = dict.fromkeys(
    ("queued", "in_flight", "restarts", "replayed", "quarantined", "timed_out", "busy", "rejected", "trips"), 0
)
_TOKEN = {"backend": "pkcs11", "label": "openk", "model": "SoftHSM v2", "serial": "c138650f922cc7e8", "firmware": "2.6"}
_UP = {"hsm": "main", "state": "up", "workers": 2, "configured": 2}
_FINE = {**_UP, **_IDLE, "breaker": False, "latched": False, "retry_after": None, "advice": ""}
_STATES: dict[str, dict[str, object]] = {
    "main": _FINE,
    "vendor": {
        **_FINE,
        "hsm": "vendor",
        "state": "restarting",
        "workers": 0,
        "queued": 7,
        "restarts": 3,
        "replayed": 12,
        "advice": "The worker died and is started again; requests wait.",
    },
    "down": {
        **_FINE,
        "hsm": "down",
        "state": "down",
        "workers": 0,
        "trips": 1,
        "breaker": True,
        "retry_after": 1500,
        "advice": "No token matches the HSM URI. Check the URI and the device.",
    },
    "latched": {
        **_FINE,
        "hsm": "latched",
        "state": "latched",
        "workers": 0,
        "latched": True,
        "advice": "Correct the PIN.",
    },
}


def _states(params: Params) -> Mapping[str, object]:
    asked = params.get("hsm")
    return {"hsms": [_STATES["main"], _STATES["vendor"]] if asked is None else [_STATES[str(asked)]]}


def _row(state: str, role: str, label: str, **more: object) -> dict[str, object]:
    shown = {"name": None, "version": None, "id": label.encode().hex(), "kind": "secret", "algorithm": "aes-256-gcm"}
    return {"state": state, "role": role, "label": label, **shown, **more}


def _objects(params: Params) -> Mapping[str, object]:
    rows = [
        _row("ok", "root", "openk-root-data"),
        _row("ok", "audit", "openk-audit", kind="private", algorithm="ed25519"),
        _row("ok", "key", "openk-key-01", name="code/release", version=1, kind="private", algorithm="p-256"),
    ]
    if params.get("hsm") != "vendor":
        return {"hsm": "main", "objects": rows, "unknown": 0, "missing": 0, "doubled": 0, "keys": 3, "complete": True}
    rows += [
        _row("unknown", "none", "web \x1b[31mserver", kind="private", algorithm="rsa"),
        _row("missing", "key", "openk-key-02", name="code/old", version=3, kind="", algorithm="p-256"),
        _row("doubled", "root", "openk-root-mac"),
        _row("doubled", "root", "openk-root-mac"),
    ]
    return {
        "hsm": "vendor",
        "objects": rows,
        "unknown": 1,
        "missing": 1,
        "doubled": 2,
        "keys": 50000,
        "complete": False,
    }


def _selftest(params: Params) -> Mapping[str, object]:
    check = str(params["check"])
    outcome, text = "ok", "as it should be"
    if params.get("hsm") == "vendor" and check == "hmac":
        outcome, text = "failed", "the same input had two HMACs"
    elif check == "agreement":
        outcome, text = "unsupported", "this token does not do that"
    row = {"check": check, "outcome": outcome, "text": text, "microseconds": 1234}
    return {"hsm": params.get("hsm", "main"), "passed": outcome != "failed", "checks": [row]}


def _attest(params: Params) -> Mapping[str, object] | Refusal:
    if params["key"] != "code/release":
        return Refusal("key.unsupported", f"{params['key']} is wrapped: an HSM vouches for resident keys only.")
    return {"key": params["key"], "version": 1, "hsm": "main", "pem": _CERTIFICATE}


_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"


def _bench(params: Params) -> Mapping[str, object] | Refusal:
    if params.get("hsm") == "vendor" and params["operation"] == "p-256":
        return Refusal("key.unsupported", "p-256 is not measured on this HSM.")
    times = [100 + number for number in range(int(str(params["count"])))]
    shown = {"per_second": 9000, "p50": 100, "p99": 199, "times": times}
    return {"hsm": "main", "operation": params["operation"], **shown}


def _history(params: Params) -> dict[str, object]:
    million = 1_000_000
    load = {"signal": "requests_per_second", "unit": "1/s", "summary": "Requests answered.", "now": 120 * million}
    share = {"signal": "disk_free_share", "unit": "", "summary": "Free.", "now": 500_000, "values": [None, 500_000]}
    values = [None, 0, 60 * million, 120 * million]
    week = params.get("span") == "week"
    load |= {"values": values, **({"lows": values, "highs": [None, 0, 60 * million, 240 * million]} if week else {})}
    return {"seconds": 300 if week else 10, "end": 1_767_323_045, "signals": [load] if "signal" in params else [load, share]}


def _alerts(params: Params) -> dict[str, object]:
    down = {
        "alert": "hsm_down", "severity": "page", "raised": True, "since": 1_767_323_045, "signal": "hsm_down",
        "value": 1_000_000, "raise_at": 1_000_000, "clear_at": 0, "for_seconds": 10, "text": "1 HSMs do not serve",
    }  # fmt: skip
    well = {**down, "alert": "sealed", "raised": False, "since": None, "signal": "sealed", "value": 0, "text": ""}
    return {"alerts": [well, down], "cursor": "0a1b2c3d:1"}


def _events(params: Params) -> dict[str, object]:
    """One event, for whoever has not read it."""
    event = {
        "number": 1, "kind": "alert.raised", "at": 1_767_323_045, "severity": "page", "subject": "hsm_down",
        "value": 1_000_000, "text": "1 HSMs do not serve",
    }  # fmt: skip
    events = [] if params.get("after") == "0a1b2c3d:1" else [event]
    return {"events": events, "cursor": "0a1b2c3d:1", "lost": 0, "restarted": False}


BACKUP: dict[str, object] = {"backup": "20260102T030405Z-1042", "made": "2026-01-02T03:04:05Z", "entries": 1042, "signed": 1040, "bytes": 9_273_344}

ANSWERS: dict[str, Answer] = {
    "system.health": {
        "status": "degraded",
        "components": {"store": {"status": "ok"}, "hsm": {"status": "restarting", "lanes": 1}},
    },
    "system.methods": {
        "methods": [{"name": name, "summary": METHODS[name].summary} for name in ("key.sign", "key.verify")]
    },
    "system.history": _history,
    "system.alerts": _alerts,
    "system.events": _events,
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
    "backup.create": lambda params: {"run": 3, "state": "made", **BACKUP, "seconds": 1} if params["wait"] else {"run": 3, "state": "running"},
    "backup.list": {
        "backups": [{**BACKUP, "backup": "20260101T030405Z-998", "made": "2026-01-01T03:04:05Z"}, BACKUP],
        "next": "2026-01-03T03:04:05Z",
        "running": {"run": 4, "step": "copying", "percent": 43},
        "last": {"run": 3, "ended": "2026-01-02T04:04:05Z", "backup": None, "reason": "space", "text": "7 bytes are free, 9 are needed"},
    },
    "hsm.list": {
        "hsms": [
            {**_UP, **_TOKEN},
            {**_UP, "hsm": "vendor", "state": "starting", "workers": 0, **dict.fromkeys(_TOKEN)},
        ]
    },
    "hsm.info": {
        "hsm": "main",
        **_TOKEN,
        "identity": "6f62",
        "chosen": {"data": "AES-256-GCM", "key objects": "AES-KWP"},
        "mechanisms": ["AES_GCM", "ECDSA"],
        "missing": [],
        "keys": [
            {"algorithm": "p-256", "purpose": "sign", "resident": True, "wrapped": True, "cached": True},
            {"algorithm": "x25519", "purpose": "agree", "resident": False, "wrapped": False, "cached": True},
        ],
    },
    "hsm.status": _states,
    "hsm.objects": _objects,
    "hsm.selftest": _selftest,
    "hsm.attest": _attest,
    "hsm.bench": _bench,
    "policy.explain": {
        "allowed": False,
        "policies": [],
        "errors": [],
        "flips": ["principal.unit == shop.service"],
        "facts": {"uid": 1000, "unit": None},
    },
    "policy.reload": Refusal("policy.denied", details={"policies": ["10-base.nobody", "50-today.no-reload"]}),
    "audit.head": {"checkpoint": "openk.local/audit\n17\nabc=\n", "signed_size": 17, "size": 17, "public": b"0*0\x05"},
    "audit.tail": {
        "entries": [
            {"index": 16, "entry": '{"time":"2026-01-02T03:04:05Z","method":"key.encrypt","outcome":"allowed"}'}
        ]
    },
    "key.rotate": Refusal("hsm.unavailable", retry_after=2.5),
}
