"""The real daemon and its worker, frozen after work with secrets: none of them is anywhere outside locked memory, nor
in the state folder, nor in the log.

That the search finds what is there is shown by tests/security/test_scan_finds_leaks.py, and here by names, which are
no secrets to the daemon's memory: they must be found."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import sleep
from typing import Any

import msgpack  # type: ignore[import-untyped]  # it has no types
import pytest

from tests.support.daemon import RunningDaemon, copy_template, running_daemon, template
from tests.support.scan import Hit, forms, scan, unlocked

__all__ = ["template"]

Params = Mapping[str, object]


class Line:
    """A connection that sends what it is told to, whatever that is."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(path))
        self._unpacker = msgpack.Unpacker(raw=False)

    def frame(self, method: str, params: Params) -> bytes:
        return bytes(msgpack.packb([0, 7, method, [params]]))

    def ask(self, method: str, **params: object) -> dict[str, Any]:  # Any: results of many methods
        error, result = self.exchange(self.frame(method, params))
        assert error is None, (method, error)
        answer: dict[str, Any] = result
        return answer

    def refusal(self, method: str, **params: object) -> str:
        error, _ = self.exchange(self.frame(method, params))
        assert error is not None, f"{method} was not refused"
        return str(error[1]).partition(":")[0]

    def exchange(self, frame: bytes) -> tuple[Any, Any]:  # Any: as above
        self.sock.sendall(frame)
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


@pytest.fixture(scope="module")
def daemon(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(copy_template(template, tmp_path_factory.mktemp("memory") / "dev")) as running:
        line = Line(running.socket)
        line.ask("vault.create", vault="v")
        for name, params in KEYS.items():
            line.ask("key.create", key=f"v/{name}", **params)
        line.close()
        yield running


KEYS: Mapping[str, Mapping[str, str]] = {
    "seal": {"algorithm": "aes-256-gcm"},
    "cached": {"algorithm": "aes-256-gcm", "protection": "cached"},
    "kek": {"algorithm": "aes-256-gcm", "purpose": "wrap"},
    "derive": {"algorithm": "hmac-sha-256", "purpose": "derive"},
    "mac": {"algorithm": "hmac-sha-256"},
    "ecdh": {"algorithm": "p-256", "purpose": "agree"},
    "kem": {"algorithm": "ml-kem-768"},
    "rsa": {"algorithm": "rsa-2048", "purpose": "decrypt"},
}


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
    line.ask("key.encrypt", key="v/seal", items=batch)
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


@pytest.mark.parametrize(
    "work",
    [secrets, refused_secrets, ciphers, wrapping, derivation, agreement, rsa, vanished],
    ids=lambda f: f.__name__,
)
def test_no_secret_is_outside_locked_memory(daemon: RunningDaemon, work: Callable[[Line, Canaries], None]) -> None:
    canaries = Canaries()
    line = Line(daemon.socket)
    work(line, canaries)
    line.close()
    sleep(0.3)  # idle: replies are sent, groups committed
    found = {name: leaks(pid, canaries.needles) for name, pid in daemon.pids.items()}
    assert found == {"openkd": [], "hsm-0": []}
    assert in_files(daemon, canaries.needles) == []


def test_the_pin_is_never_in_the_daemon(daemon: RunningDaemon) -> None:
    pin = (daemon.folder / "pin").read_bytes().strip()
    assert scan(daemon.pids["openkd"], [pin]) == []
    assert leaks(daemon.pids["hsm-0"], [pin]) == []
    assert in_files(daemon, [pin]) == []


def test_what_is_no_secret_is_found(daemon: RunningDaemon) -> None:
    """The search works on this very process and these very files."""
    name = f"n{os.urandom(12).hex()}"
    line = Line(daemon.socket)
    line.ask("vault.create", vault=name)
    assert unlocked(scan(daemon.pids["openkd"], [name.encode()]))
    line.ask("audit.head")
    assert in_files(daemon, [name.encode()])
    line.close()


def leaks(pid: int, needles: list[bytes]) -> list[Hit]:
    return [hit for hit in unlocked(scan(pid, needles)) if not hit.in_registers]


def in_files(daemon: RunningDaemon, needles: list[bytes]) -> list[Hit]:
    """Needles in what the daemon wrote: all of its folder but the token, and the log. It can write nowhere else."""
    hits: list[Hit] = []
    inside = [path for path in daemon.folder.rglob("*") if path.is_file() and not path.is_socket()]
    files = [path for path in inside if "tokens" not in path.parts and path.name != "pin"]
    for path in [*files, daemon.log_file]:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue  # a tile that was just replaced by a wider one
        for number, needle in enumerate(needles):
            for form, text in forms(needle):
                at = content.find(text)
                if at >= 0:
                    hits.append(Hit(number, form, str(path), at, locked=False))
    return hits
