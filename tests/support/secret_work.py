"""Work with secrets on a running daemon, for those who search it afterwards: every method, refusals, clients that go.

    canaries = Canaries()
    line = Line(daemon.socket)
    furnish(line)
    for work in WORK:
        work(line, canaries)
    assert in_files(daemon, canaries.needles) == []     # and scan(pid, canaries.needles)
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import sleep
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # it has no types

from openk.wire.methods import METHODS
from tests.support.backlog import find
from tests.support.daemon import RunningDaemon
from tests.support.scan import Hit

Params = Mapping[str, object]


class Line:
    """A connection that sends what it is told to, whatever that is."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(path))
        self._unpacker = msgpack.Unpacker(raw=False)
        self.outcomes: set[tuple[str, str]] = set()
        """Each method that was asked for with `ask` and `refusal`, and `ok` or the code of its refusal."""

    def frame(self, method: str, params: Params) -> bytes:
        return bytes(msgpack.packb([0, 7, method, [params]]))

    def ask(self, method: str, **params: object) -> dict[str, Any]:  # Any: results of many methods
        error, result = self.exchange(self.frame(method, params))
        assert error is None, (method, error)
        self.outcomes.add((method, "ok"))
        answer: dict[str, Any] = result
        return answer

    def refusal(self, method: str, **params: object) -> str:
        error, _ = self.exchange(self.frame(method, params))
        assert error is not None, f"{method} was not refused"
        code = str(error[1]).partition(":")[0]
        self.outcomes.add((method, code))
        return code

    def exchange(self, frame: bytes) -> tuple[Any, Any]:  # Any: as above
        self.sock.sendall(frame)
        return self.receive()

    def receive(self) -> tuple[Any, Any]:  # Any: as above
        """The next answer: error and result."""
        while True:
            for _, _, error, result in self._unpacker:
                return error, result
            received = self.sock.recv(1 << 20)
            assert received, "the daemon hung up"
            self._unpacker.feed(received)

    def close(self) -> None:
        self.sock.close()


class Canaries:
    """Secrets to look for: one that every input is made of, and those that the daemon made. Few, for each is searched
    in some twenty forms through two processes."""

    def __init__(self) -> None:
        self.ours = os.urandom(32)
        self.needles: list[bytes] = [self.ours]

    @classmethod
    def like(cls, other: Canaries) -> Canaries:
        """Of the same inputs."""
        made = cls()
        made.ours = other.ours
        return made

    def fresh(self, length: int = 32) -> bytes:
        """An input."""
        return (self.ours * (length // 32 + 1))[:length]

    def keep(self, needle: bytes) -> None:
        self.needles.append(needle)


KEYS: Mapping[str, Mapping[str, str]] = {
    "seal": {"algorithm": "aes-256-gcm"},
    "cached": {"algorithm": "aes-256-gcm", "protection": "cached"},
    "kek": {"algorithm": "aes-256-gcm", "purpose": "wrap"},
    "derive": {"algorithm": "hmac-sha-256", "purpose": "derive"},
    "mac": {"algorithm": "hmac-sha-256"},
    "ecdh": {"algorithm": "p-256", "purpose": "agree"},
    "kem": {"algorithm": "ml-kem-768"},
    "rsa": {"algorithm": "rsa-2048", "purpose": "decrypt"},
    "sign": {"algorithm": "ed25519", "protection": "cached"},
    "dsa": {"algorithm": "ml-dsa-44"},
}


def furnish(line: Line) -> None:
    """A vault and a key for every job."""
    line.ask("vault.create", vault="v")
    for name, params in KEYS.items():
        line.ask("key.create", key=f"v/{name}", **params)


def secrets(line: Line, canaries: Canaries) -> None:
    value = canaries.fresh()
    line.ask("secret.put", secret="v/one", value=value)
    assert line.ask("secret.get", secret="v/one")["value"] == value
    fields = {name: canaries.fresh() for name in ("user", "password")}
    line.ask("secret.put", secret="v/map", fields=fields)
    assert line.ask("secret.get", secret="v/map")["fields"] == fields
    large = canaries.fresh(64) * 2000
    line.ask("secret.put", secret="v/large", value=large)
    assert line.ask("secret.get", secret="v/large")["value"] == large
    assert line.ask("secret.delete", secret="v/map")["deleted"]


def refused_secrets(line: Line, canaries: Canaries) -> None:
    fresh = canaries.fresh
    assert line.refusal("secret.put", secret="v/one", value=fresh(), expected=17) == "secret.conflict"
    assert line.refusal("secret.put", secret="none/one", value=fresh()) == "vault.unknown"
    assert line.refusal("secret.put", secret="v/one", value=fresh(), valeu=1) == "request.invalid"
    assert line.refusal("secret.put", secret="v/one", velue=fresh()) == "request.invalid"
    assert line.refusal("secret.put", secret="no name", value=fresh()) == "request.invalid"
    assert line.refusal("secret.putt", secret="v/one", value=fresh()) == "request.unknown_method"
    twice = b"\x94\x00\x01\xaasecret.put\x91\x83\xa6secret\xa5v/one\xa5value\xc4\x20%b\xa5value\xc4\x20%b"
    line.exchange(twice % (fresh(), fresh()))


def ciphers(line: Line, canaries: Canaries) -> None:
    for key in ("v/seal", "v/cached"):
        plaintext = canaries.fresh()
        sealed = line.ask("key.encrypt", key=key, input=plaintext, aad=b"with")["ciphertext"]
        assert line.ask("key.decrypt", key=key, ciphertext=sealed, aad=b"with")["plaintext"] == plaintext
        assert line.refusal("key.decrypt", key=key, ciphertext=sealed, aad=b"other") == "key.ciphertext_invalid"
        again = line.ask("key.reencrypt", key=key, ciphertext=sealed, aad=b"with")["ciphertext"]
        broken = bytearray(again)
        broken[-1] ^= 1
        assert line.refusal("key.decrypt", key=key, ciphertext=bytes(broken), aad=b"with") == "key.ciphertext_invalid"
    batch = [{"input": canaries.fresh()} for _ in range(8)]
    answered = line.ask("key.encrypt", key="v/seal", items=batch)["results"]
    mixed = [{"ciphertext": answered[0]["ciphertext"]}, {"ciphertext": answered[1]["ciphertext"], "aad": b"other"}]
    opened, refused = line.ask("key.decrypt", key="v/seal", items=mixed)["results"]
    assert (opened["plaintext"], "error" in refused) == (batch[0]["input"], True)
    large = canaries.fresh(64) * 500
    sealed = line.ask("key.encrypt", key="v/seal", input=large)["ciphertext"]
    assert line.ask("key.decrypt", key="v/seal", ciphertext=sealed)["plaintext"] == large


def wrapping(line: Line, canaries: Canaries) -> None:
    inner = canaries.fresh()
    wrapped = line.ask("key.wrap", key="v/kek", input=inner)["wrapped"]
    assert line.ask("key.unwrap", key="v/kek", wrapped=wrapped)["output"] == inner
    assert line.refusal("key.unwrap", key="v/kek", wrapped=wrapped, aad=b"other") == "key.ciphertext_invalid"
    made = line.ask("key.data_key", key="v/kek")
    canaries.keep(made["plaintext"])
    assert line.ask("key.unwrap", key="v/kek", wrapped=made["wrapped"])["output"] == made["plaintext"]


def derivation(line: Line, canaries: Canaries) -> None:
    for mode in ("sp800-108-counter", "hkdf-expand"):
        derived = line.ask("key.derive", key="v/derive", mode=mode, length=64, context=b"c")["derived"]
        canaries.keep(derived)
    canaries.keep(line.ask("random.bytes", length=32)["bytes"])
    made = line.ask("key.mac", key="v/mac", input=canaries.fresh())["mac"]
    line.ask("key.verify_mac", key="v/mac", input=canaries.fresh(), mac=made)
    assert line.refusal("key.verify_mac", key="v/mac", input=canaries.fresh(64), mac=made) == "key.mac_invalid"


def agreement(line: Line, canaries: Canaries) -> None:
    ours = line.ask("key.public", key="v/ecdh")["public"]
    canaries.keep(line.ask("key.agree", key="v/ecdh", public=ours)["shared"])
    made = line.ask("key.encapsulate", key="v/kem")
    canaries.keep(made["shared"])
    assert line.ask("key.decapsulate", key="v/kem", ciphertext=made["ciphertext"])["shared"] == made["shared"]


def rsa(line: Line, canaries: Canaries) -> None:
    plaintext = canaries.fresh()
    sealed = line.ask("key.encrypt", key="v/rsa", input=plaintext, hash="sha-1")["ciphertext"]
    assert line.ask("key.decrypt", key="v/rsa", ciphertext=sealed, hash="sha-1")["plaintext"] == plaintext


def signing(line: Line, canaries: Canaries) -> None:
    """Keys that leave no secret behind but themselves: nobody knows them, so what is looked for is what was signed."""
    for key in ("v/sign", "v/dsa"):
        made = line.ask("key.sign", key=key, input=canaries.fresh())["signature"]
        line.ask("key.verify", key=key, input=canaries.fresh(), signature=made)
        told = line.refusal("key.verify", key=key, input=canaries.fresh(64), signature=made)
        assert told == "key.signature_invalid"


REFUSED: Final[Mapping[str, tuple[tuple[str, Mapping[str, object]], ...]]] = {
    "key.encrypt": (("key.unknown", {"key": "v/none"}), ("key.unsuitable", {"key": "v/mac"})),
    "key.mac": (("key.unknown", {"key": "v/none"}), ("key.unsuitable", {"key": "v/seal"})),
    "key.verify_mac": (("key.unknown", {"key": "v/none", "mac": b"m"}), ("key.mac_invalid", {"key": "v/mac", "mac": b"m"})),
    "key.wrap": (("key.unknown", {"key": "v/none"}), ("key.unsuitable", {"key": "v/seal"})),
}  # fmt: skip
"""What is refused although it is well formed, and with which code; the `input` is a secret."""


def refused_inputs(line: Line, canaries: Canaries) -> None:
    """Every method with a secret in a field that it does not have; those that take one, for other reasons, too."""
    for method in METHODS:
        assert line.refusal(method, stray=canaries.fresh()) == "request.invalid"
    for method, reasons in REFUSED.items():
        for code, params in reasons:
            assert line.refusal(method, input=canaries.fresh(), **params) == code
    items = [{"input": canaries.fresh()}, {"inptu": canaries.fresh()}]
    assert line.refusal("key.encrypt", key="v/seal", items=items) == "request.invalid"


OF_ITSELF: Final = (
    "hello", "ping", "methods", "health", "info", "metrics", "history", "alerts", "events", "config", "config_changes",
    "log_level",
)  # fmt: skip
"""Methods of `system` that answer from what the daemon knows of itself."""


def everything_else(line: Line, canaries: Canaries) -> None:
    """Methods that are given no secret and give none. The keys that they work with are the HSM's."""
    del canaries
    for name in OF_ITSELF:
        line.ask(f"system.{name}")
    for noun, of in (("vaults", "vault.list"), ("hsms", "hsm.list"), ("hsms", "hsm.status")):
        assert line.ask(of)[noun]
    for method in ("vault.describe", "key.list", "secret.list"):
        line.ask(method, vault="v")
    for method in ("key.describe", "key.public"):
        line.ask(method, key="v/sign")
    for method in ("hsm.info", "hsm.objects", "audit.head", "audit.tail", "policy.reload"):
        line.ask(method)
    assert line.ask("hsm.selftest")["passed"]
    assert line.ask("backup.create", wait=20)["state"] == "made"
    assert line.ask("backup.list")["backups"]
    line.ask("hsm.bench", operation="aes-256-gcm", count=5)
    line.ask("policy.explain", action="key.sign", resource="v/sign")
    line.ask("audit.prove", index=0)
    assert line.refusal("hsm.attest", key="v/sign") == "key.unsupported"


def vanished(line: Line, canaries: Canaries) -> None:
    """Clients that go away: in the middle of a frame, and before their answer."""
    path = Path(str(line.sock.getpeername()))
    for part in (0.5, 0.9, 1.0):
        gone = Line(path)
        value = canaries.fresh(400)
        frame = gone.frame("secret.put", {"secret": "v/gone", "value": value})
        gone.sock.sendall(frame[: int(len(frame) * part)])
        sleep(0.02)
        gone.close()
    sealed = line.ask("key.encrypt", key="v/seal", input=canaries.fresh())["ciphertext"]
    gone = Line(path)
    gone.sock.sendall(gone.frame("key.decrypt", {"key": "v/seal", "ciphertext": sealed}) * 20)
    gone.close()


WORK: Final[Sequence[Callable[[Line, Canaries], None]]] = (
    secrets, refused_secrets, refused_inputs, ciphers, wrapping, derivation, agreement, rsa, signing, everything_else, vanished,
)  # fmt: skip


def in_files(daemon: RunningDaemon, needles: Sequence[bytes]) -> list[Hit]:
    """Needles in what the daemon wrote: all of its folder but the token, and the log. It can write nowhere else."""
    hits: list[Hit] = []
    inside = [path for path in daemon.folder.rglob("*") if path.is_file() and not path.is_socket()]
    files = [path for path in inside if "tokens" not in path.parts and path.name != "pin"]
    for path in [*files, daemon.log_file]:
        try:
            hits += find(str(path), path.read_bytes(), needles)
        except FileNotFoundError:
            continue  # a tile that was just replaced by a wider one
    return hits
