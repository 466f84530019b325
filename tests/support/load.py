"""A mixed load on a daemon that may die at any moment, and a book of what it promised: every acknowledged write.

    wire = Wire(socket)              one connection, raw MessagePack-RPC, a few requests at a time
    Client(name, book, ...).run()    a client that does a bit of everything until told to stop
    await check(socket, book)        asks the daemon for all it ever acknowledged

What was asked and not answered is unknown: it may have happened or not, wholly in either case.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgpack  # type: ignore[import-untyped]  # it has no types
import trio

Answer = Mapping[str, Any]  # Any: results of forty methods, as msgpack gives them
T = TypeVar("T")
Call = tuple[str, Mapping[str, object]]
PAUSE: Final = 0.01
"""Seconds between a client's turns: everything that is acknowledged is checked in the end, on one machine."""
WINDOW: Final = 32
"""Requests in flight while promises are checked."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What an HSM of some kind is asked to make. `kinds`: keys of many versions. `resident`: a token object.
    `objects`: how many of those the token has room for, vaults' keys included, of which each has `vault`."""

    kinds: Sequence[Mapping[str, str]]
    resident: Mapping[str, str]
    objects: int
    vault: int


TOKEN: Final = Mix(
    ({"algorithm": "aes-256-gcm"}, {"algorithm": "p-256"}),
    {"algorithm": "aes-256-gcm", "protection": "resident"},
    objects=1 << 20,
    vault=0,
)
YUBIHSM: Final = Mix(
    ({"algorithm": "aes-256-gcm", "protection": "cached"}, {"algorithm": "p-256", "protection": "cached"}),
    {"algorithm": "p-256", "protection": "resident"},
    objects=200,
    vault=2,
)


@dataclass(frozen=True, slots=True)
class Refused:
    """The daemon answered with an error."""

    code: str
    message: str


class Wire:
    """One connection at a time; made when needed. After a loss the next `ask` connects again."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)
        self._stream: trio.SocketStream | None = None
        self._unpacker = msgpack.Unpacker(raw=False)
        self._next = 0

    async def connect(self, seconds: float = 30.0) -> None:
        """Until somebody listens. Raises trio.TooSlowError when nobody does for so long."""
        with trio.fail_after(seconds):
            while self._stream is None:
                try:
                    self._stream = await trio.open_unix_socket(self._socket)
                except OSError:
                    await trio.sleep(0.01)
        self._unpacker = msgpack.Unpacker(raw=False)

    async def ask(self, calls: Sequence[Call], seconds: float = 30.0) -> list[Answer | Refused | None]:
        """All at once; the answers in order, None for those that never came because the connection ended.
        Raises trio.TooSlowError where the daemon lives and does not answer."""
        await self.connect()
        first, self._next = self._next, self._next + len(calls)
        answers: list[Answer | Refused | None] = [None] * len(calls)
        missing = len(calls)
        frames = b"".join(msgpack.packb([0, first + at, name, [params]]) for at, (name, params) in enumerate(calls))
        with trio.move_on_after(seconds) as patience:
            try:
                assert self._stream is not None
                await self._stream.send_all(frames)
                while missing:
                    received = await self._stream.receive_some(1 << 16)
                    if not received:
                        raise trio.BrokenResourceError("the daemon has gone")
                    self._unpacker.feed(received)
                    for kind, msgid, error, result in self._unpacker:
                        assert (kind, answers[msgid - first]) == (1, None), "an answer that nobody waits for"
                        answers[msgid - first] = result if error is None else _refused(error)
                        missing -= 1
            except trio.BrokenResourceError:
                await self.close()
        if patience.cancelled_caught:
            open_ = [_subject(call) for call, answer in zip(calls, answers, strict=True) if answer is None]
            raise trio.TooSlowError(f"no answer within {seconds} s to {open_}")
        return answers

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()


def _refused(error: Sequence[Any]) -> Refused:  # Any: a pair of number and text
    code, _, message = str(error[1]).partition(": ")
    return Refused(code, message)


@dataclass(slots=True)
class Key:
    """`version`: the newest acknowledged one."""

    job: str  # "encrypt" or "sign"
    version: int
    resident: bool = False


@dataclass(slots=True)
class Book:
    """What was acknowledged, and what else may be true. `refused`: (method, code) of refusals nobody provoked."""

    secrets: dict[str, dict[int, bytes]] = field(default_factory=dict)
    tried: dict[str, set[bytes]] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    vaults: set[str] = field(default_factory=set)
    sealed: list[tuple[str, bytes, bytes]] = field(default_factory=list)  # key, plaintext, ciphertext
    signed: list[tuple[str, bytes, bytes, int]] = field(default_factory=list)  # key, message, signature, key version
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    answered: int = 0
    writes: int = 0
    lost: int = 0
    objects: int = 0
    """Of the token, asked for."""

    async def until(self, answered: int) -> None:
        """So many requests were answered."""
        while self.answered < answered:  # noqa: ASYNC110 - by the tasks of a load, which set no event
            await trio.sleep(0.01)

    def keep(self, name: str, version: int, value: bytes) -> None:
        versions = self.secrets.setdefault(name, {})
        assert version not in versions, f"version {version} of {name} was acknowledged twice"
        versions[version] = value
        self.writes += 1


SHARED: Final = "load/shared"
"""A secret that every client writes."""


class Client:
    """One of several. Names of its own (`name`), but for `SHARED`; its choices come from `chance`."""

    def __init__(self, name: str, book: Book, socket: Path, chance: random.Random, mix: Mix = TOKEN) -> None:
        self.wire = Wire(socket)
        self._mix = mix
        self._me = name
        self._book = book
        self._chance = chance
        self._made = 0

    async def run(self, stop: trio.Event) -> None:
        """Until `stop` is set."""
        while not stop.is_set():
            await self.turn()
            await trio.sleep(PAUSE)
        await self.wire.close()

    async def turn(self) -> None:
        """One to four requests at once."""
        calls = [self._choose() for _ in range(self._chance.randint(1, 4))]
        answers = await self.wire.ask(calls)
        for (method, params), answer in zip(calls, answers, strict=True):
            self._judge(method, params, answer)
        if None in answers:
            self._book.lost += answers.count(None)

    # --- what to ask ---

    def _choose(self) -> Call:
        dice = self._chance.random()
        if dice < 0.25:
            return self._put(SHARED if self._chance.random() < 0.2 else f"load/{self._me}-{self._chance.randrange(8)}")
        if dice < 0.50:
            return self._get()
        if dice < 0.65:
            return self._use("encrypt", "key.encrypt")
        if dice < 0.80:
            return self._decrypt()
        if dice < 0.90:
            return self._use("sign", "key.sign")
        return self._make(dice)

    def _make(self, dice: float) -> Call:
        name = f"load/{self._me}-k{self._made}"
        if dice < 0.96:
            self._made += 1
            return "key.create", {"key": name, **self._chance.choice(self._mix.kinds)}
        if dice < 0.965 and self._has_room(1):
            self._made += 1
            return "key.create", {"key": name, **self._mix.resident}
        if dice < 0.99:
            mine = [name for name, key in self._book.keys.items() if f"/{self._me}-" in name and not key.resident]
            if mine:
                return "key.rotate", {"key": self._chance.choice(mine)}
        if not self._has_room(self._mix.vault):
            return self._use("sign", "key.sign")
        self._made += 1
        return "vault.create", {"vault": f"{self._me}-v{self._made}"}

    def _has_room(self, objects: int) -> bool:
        """On the token; then they count as made."""
        fits = self._book.objects + objects <= self._mix.objects
        self._book.objects += objects * fits
        return fits

    def _put(self, name: str) -> Call:
        value = self._chance.randbytes(self._chance.choice([16, 200, 3000]))
        self._book.tried.setdefault(name, set()).add(value)
        return "secret.put", {"secret": name, "value": value}

    def _get(self) -> Call:
        if not self._book.secrets:
            return self._put(SHARED)
        name = self._chance.choice(list(self._book.secrets))
        return "secret.get", {"secret": name, "version": self._chance.choice(list(self._book.secrets[name]))}

    def _use(self, job: str, method: str) -> Call:
        fitting = [name for name, key in self._book.keys.items() if key.job == job]
        if not fitting:
            return self._put(SHARED)
        return method, {"key": self._chance.choice(fitting), "input": self._chance.randbytes(64)}

    def _decrypt(self) -> Call:
        if not self._book.sealed:
            return self._use("encrypt", "key.encrypt")
        key, _, ciphertext = self._chance.choice(self._book.sealed)
        return "key.decrypt", {"key": key, "ciphertext": ciphertext}

    # --- what it means ---

    def _judge(self, method: str, params: Mapping[str, Any], answer: Answer | Refused | None) -> None:  # Any: our own
        book = self._book
        if answer is None:
            return
        if isinstance(answer, Refused):
            book.refused[f"{method} {params.get('protection', '')}".strip(), answer.code] += 1
            return
        book.answered += 1
        match method:
            case "secret.put":
                book.keep(params["secret"], answer["version"], params["value"])
            case "secret.get":
                wanted = book.secrets[params["secret"]][answer["version"]]
                assert answer["value"] == wanted, f"{params['secret']} has another value than was acknowledged"
            case "key.create":
                job = "encrypt" if params["algorithm"] == "aes-256-gcm" else "sign"
                book.keys[params["key"]] = Key(job, answer["version"], params.get("protection") == "resident")
                book.writes += 1
            case "key.rotate":
                known = book.keys[params["key"]]
                known.version = max(known.version, answer["version"])
                book.writes += 1
            case "vault.create":
                book.vaults.add(params["vault"])
                book.writes += 1
            case "key.encrypt":
                _sample(book.sealed, (params["key"], params["input"], answer["ciphertext"]), self._chance)
            case "key.sign":
                signed = (params["key"], params["input"], answer["signature"], answer["version"])
                _sample(book.signed, signed, self._chance)
            case "key.decrypt":
                opened = next(plain for _, plain, cipher in book.sealed if cipher == params["ciphertext"])
                found = answer["plaintext"]
                assert found == opened, f"{params['key']}: {len(found)} bytes {found.hex()}, not {opened.hex()}"
            case _:
                raise AssertionError(method)


def _sample(kept: list[T], fresh: T, chance: random.Random) -> None:
    """The first 500, then one in ten: all are checked at the end."""
    if len(kept) < 500 or chance.random() < 0.1:
        kept.append(fresh)


async def furnish(socket: Path, book: Book, mix: Mix = TOKEN) -> None:
    """The vault that the load works in, with a key of each job; the device does what the second one is asked."""
    wire = Wire(socket)
    calls: list[Call] = [
        ("vault.create", {"vault": "load"}),
        ("key.create", {"key": "load/first", **mix.kinds[0]}),
        ("key.create", {"key": "load/second", "algorithm": "p-256"}),
    ]
    for call in calls:
        (answer,) = await wire.ask([call])
        assert isinstance(answer, dict), (call, answer)
    await wire.close()
    book.keys["load/first"] = Key("encrypt", 1)
    book.keys["load/second"] = Key("sign", 1)
    book.vaults.add("load")


# --- was every promise kept? ---


async def check(socket: Path, book: Book) -> int:
    """Ask for everything that was acknowledged; how much that was. AssertionError names what is gone."""
    questions: list[tuple[Call, Mapping[str, object]]] = []
    for name, versions in book.secrets.items():
        for version, value in versions.items():
            questions.append((("secret.get", {"secret": name, "version": version}), {"value": value}))
    questions += [(("vault.describe", {"vault": vault}), {"vault": vault}) for vault in book.vaults]
    questions += [
        (("key.decrypt", {"key": key, "ciphertext": ciphertext}), {"plaintext": plaintext})
        for key, plaintext, ciphertext in book.sealed
    ]
    for key, message, signature, version in book.signed:
        verify: Call = ("key.verify", {"key": key, "version": version, "input": message, "signature": signature})
        questions.append((verify, {"valid": True}))
    wire = Wire(socket)
    for begin in range(0, len(questions), WINDOW):
        part = questions[begin : begin + WINDOW]
        for (call, wanted), answer in zip(part, await wire.ask([call for call, _ in part]), strict=True):
            assert isinstance(answer, dict), f"{_subject(call)}: {answer}"
            for name, right in wanted.items():
                assert answer[name] == right, f"{_subject(call)} gives another {name}"
    await _check_newest(wire, book)
    await _check_keys(wire, book)
    await wire.close()
    return len(questions) + len(book.keys) + len(book.secrets)


def _subject(call: Call) -> str:
    shown = {name: value for name, value in call[1].items() if not isinstance(value, bytes)}
    return f"{call[0]} {shown}"


async def _check_newest(wire: Wire, book: Book) -> None:
    """The newest version is the acknowledged one or a later one, and nothing that nobody wrote."""
    for name, versions in book.secrets.items():
        (answer,) = await wire.ask([("secret.get", {"secret": name})])
        assert isinstance(answer, dict), f"{name}: {answer}"
        assert answer["version"] >= max(versions), f"{name} went back to version {answer['version']}"
        assert answer["value"] in book.tried[name], f"nobody wrote what {name} holds"


async def _check_keys(wire: Wire, book: Book) -> None:
    """Every key is there, in the acknowledged version or a later one, and works."""
    for name, key in book.keys.items():
        method = "key.encrypt" if key.job == "encrypt" else "key.sign"
        described, used = await wire.ask([("key.describe", {"key": name}), (method, {"key": name, "input": b"x" * 16})])
        assert isinstance(described, dict), f"{name}: {described}"
        assert described["version"] >= key.version, f"{name} went back to version {described['version']}"
        assert isinstance(used, dict), f"{method} {name}: {used}"
