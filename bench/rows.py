"""The rows of the table, each a function that measures and compares. docs: the design's table of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from bench import checks, frames
from bench.baselines import Missing
from bench.budget import budget
from bench.daemon import CLOSED, VAULT
from bench.emulator import emulator
from bench.idle import idle_connections, start
from bench.locked import locked_memory, wiping
from bench.result import Result, at_least, at_most, missing
from bench.stage import Stage
from bench.watched import watched

BATCH: Final = 16
PARSEC_TUNED: Final = 939
"""P-256 a second, one client, Parsec 1.4.1 + SoftHSM2 without its idle sleep (recorded on a machine of this class)."""
BARBICAN: Final = {1: 89, 8: 157}
"""Secrets read a second, Barbican 20 + SoftHSM2, by number of clients (recorded likewise)."""

Request = tuple[str, dict[str, object]]


def _sign(key: str) -> Request:
    return "key.sign", {"key": f"{VAULT}/{key}", "input": b"\x5a" * 32, "hash": "sha-256"}


def _mac() -> Request:
    return "key.mac", {"key": f"{VAULT}/hmac", "input": b"\x5a" * 64}


def _encrypt() -> Request:
    return "key.encrypt", {"key": f"{VAULT}/gcm", "input": b"\x5a" * 256}


def _batch(request: Request) -> Request:
    method, params = request
    return method, {"key": params["key"], "items": [{"input": params["input"]}] * BATCH}


def p256_one(stage: Stage) -> list[Result]:
    checks.sign(stage, 1, "p256")
    ours, theirs = stage.in_turn(
        lambda: stage.drive(1, "p256-one", [_sign("p256")]).rate, lambda: stage.python.rate("p256", stage.seconds)
    )
    return [at_least("p256.one", "P-256 sign, pipelined, 1 worker", ours, theirs, 0.7, ("/s", "/s python-pkcs11"))]


def p256_two(stage: Stage) -> list[Result]:
    checks.sign(stage, 2, "p256")
    ours, theirs = stage.in_turn(
        lambda: stage.drive(2, "p256-two", [_sign("p256")]).rate, lambda: stage.raw.rate("p256", stage.seconds)
    )
    return [at_least("p256.two", "P-256 sign, pipelined, 2 workers", ours, theirs, 1.0, ("/s", "/s raw C"))]


def rsa_two(stage: Stage) -> list[Result]:
    checks.sign(stage, 2, "rsa")
    ours, theirs = stage.in_turn(
        lambda: stage.drive(2, "rsa-two", [_sign("rsa")]).rate, lambda: stage.raw.rate("rsa", stage.seconds)
    )
    return [at_least("rsa.two", "RSA-2048 sign, pipelined, 2 workers", ours, theirs, 1.8, ("/s", "/s raw C"))]


def hmac(stage: Stage) -> list[Result]:
    """With one worker and with two: the goal does not say which."""
    results: list[Result] = []
    for workers in (1, 2):
        checks.mac(stage, workers)
        single, batched, raw = stage.in_turn(
            lambda workers=workers: stage.drive(workers, "hmac", [_mac()]).rate,  # type: ignore[misc]
            lambda workers=workers: stage.drive(workers, "hmac-batch", [_batch(_mac())]).rate * BATCH,  # type: ignore[misc]
            lambda: stage.raw.rate("hmac", stage.seconds),
        )
        lanes = "1 worker" if workers == 1 else "2 workers"
        results += [
            at_least(f"hmac.one.{workers}", f"HMAC 64 B, pipelined, {lanes}", single, raw, 0.25, ("/s", "/s raw C")),
            at_least(
                f"hmac.batch.{workers}",
                f"HMAC 64 B, batches of 16, {lanes}",
                batched,
                raw,
                0.6,
                ("items/s", "/s raw C"),
            ),
        ]
    return results


def gcm(stage: Stage) -> list[Result]:
    """Judged against the barest echo; beside it, for information, one that unpacks and packs each message."""
    checks.encrypt(stage)
    single, batch = frames.request(*_encrypt()), frames.request(*_batch(_encrypt()))
    one, many, echo, echo_many, reading = stage.in_turn(
        lambda: stage.drive(1, "gcm", [_encrypt()]).rate,
        lambda: stage.drive(1, "gcm-batch", [_batch(_encrypt())]).rate * BATCH,
        lambda: stage.echo("gcm", single, depth=32),
        lambda: stage.echo("gcm-batch", batch, depth=32),
        lambda: stage.echo("gcm-reading", single, depth=32, reads=True),
    )
    bare, work = ("/s", "/s bare echo"), "AES-256-GCM 256 B, cached key, pipelined"
    items = ("items/s", "frames/s bare echo")
    informed = at_least("gcm.reading", f"{work}: information", one, reading, 0, ("/s", "/s echo that unpacks"))
    return [
        at_least("gcm.one", work, one, echo, 0.25, bare),
        replace(informed, goal="-", reached=None),
        at_least("gcm.batch", "AES-256-GCM 256 B, cached, batches of 16", many, echo_many, 1.5, items),
    ]


def sequential(stage: Stage) -> list[Result]:
    work = "P-256 sign, one client, one at a time"
    mine = lambda: stage.drive(1, "p256-sequential", [_sign("p256")], depth=1).rate  # noqa: E731 - used twice below
    try:
        socket, blob = stage.agent
    except Missing as why:
        [ours] = stage.in_turn(mine)
        against_agent = missing("sequential.ssh-agent", work, "≥ 1.2 x", str(why))
    else:
        request = [frames.ssh_sign(blob, b"\x5a" * 32)]
        ours, agent = stage.in_turn(mine, lambda: stage.load.run(socket, "ssh-agent", request, framing="ssh").rate)
        against_agent = at_least("sequential.ssh-agent", work, ours, agent, 1.2, ("/s", "/s ssh-agent + SoftHSM2"))
    note = "Parsec's figure was recorded on another machine of this class, not in this run."
    against_parsec = at_least("sequential.parsec", work, ours, PARSEC_TUNED, 3, ("/s", "/s Parsec, recorded"), note)
    return [against_agent, against_parsec]


def secret_get(stage: Stage) -> list[Result]:
    checks.secret(stage)
    results: list[Result] = []
    note = "Barbican's figure was recorded on another machine of this class, not in this run."
    request: list[Request] = [("secret.get", {"secret": f"{VAULT}/password"})]
    for clients, factor in ((1, 20), (8, 50)):
        [ours] = stage.in_turn(
            lambda clients=clients: stage.drive(1, "secret", request, depth=1, connections=clients).rate  # type: ignore[misc]
        )
        work = "secret.get, 1 client" if clients == 1 else "secret.get, 8 clients"
        results.append(
            at_least(f"secret.{clients}", work, ours, BARBICAN[clients], factor, ("/s", "/s Barbican, recorded"), note)
        )
    return results


def audit(stage: Stage) -> list[Result]:
    """The same daemon with its store and log in memory, where fdatasync costs nothing: the difference is durability."""
    row, work, goal = "audit", "durable audit, 64 clients, added to p50", "≤ 2 x fdatasync"
    memory = stage.daemon_in_memory()
    if memory is None:
        return [
            missing(
                row, work, goal, "no memory file system is mounted for shared memory here: nothing to compare with."
            )
        ]
    prepared = [frames.request(*_encrypt())]
    durable, volatile, sync = stage.in_turn(
        lambda: stage.drive(1, "audit-disk", [_encrypt()], depth=1, connections=64).p50,
        lambda: stage.load.run(memory.socket, "audit-memory", prepared, connections=64).p50,
        lambda: stage.fdatasync()[0],
    )
    added = durable - volatile
    shown = (f"{added:,.0f} µs ({durable:,.0f} - {volatile:,.0f})", f"{sync:,.0f} µs fdatasync", goal)
    result = at_most(row, work, added, 2 * sync, shown)
    return [Result(row, work, *shown[:2], added / sync, goal, result.reached)]


def budgets(stage: Stage) -> list[Result]:
    """Why the rows above are what they are, and what they could be at most."""
    works = {
        "p256": ("P-256 sign", _sign("p256")),
        "rsa": ("RSA-2048 sign", _sign("rsa")),
        "hmac": ("HMAC 64 B", _mac()),
    }
    return budget(stage, works)


def refusal(stage: Stage) -> list[Result]:
    prepared = [frames.request("secret.get", {"secret": f"{CLOSED}/password"})]
    daemon = stage.daemon(1)
    p99, sync = stage.in_turn(
        lambda: stage.load.run(daemon.socket, "refusal", prepared, refused=True).p99, lambda: stage.fdatasync()[0]
    )
    limit = 3 * sync + 1000
    shown = (f"p99 {p99:,.0f} µs", f"{sync:,.0f} µs fdatasync", f"≤ 3 x fdatasync + 1 ms = {limit:,.0f} µs")
    return [at_most("refusal", "refusal by policy", p99, limit, shown)]


ROWS: Final[dict[str, Callable[[Stage], Sequence[Result]]]] = {
    "p256.one": p256_one,
    "p256.two": p256_two,
    "rsa.two": rsa_two,
    "hmac": hmac,
    "gcm": gcm,
    "budget": budgets,
    "sequential": sequential,
    "secret": secret_get,
    "audit": audit,
    "refusal": refusal,
    "watched": watched,
    "idle": idle_connections,
    "locked": locked_memory,
    "emulator": emulator,
    "wiping": wiping,
    "start": start,
}
