"""What can be configured about a daemon that runs: its log, its rates, its tuning. Almost all of it can be reloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from openk.wire.methods import ALGORITHMS

LIVE: Final = {"live": True}
"""Marks what a reload (SIGHUP) changes in the running daemon; all else takes effect at the next start."""

LevelName = Literal["debug", "info", "warning", "error"]
CATEGORIES: Final = ("requests", "crypto", "storage", "hsm", "policy", "audit", "lifecycle")
"""Whose level can be set: `openk_daemon.observe.log.Category`."""


class Levels(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The least important that one category writes, where that differs from `log.level`. `openk log level` changes it
    until the next reload or start."""

    requests: Annotated[
        LevelName | None, Meta(description="Connections and requests; at debug each refusal.", extra=LIVE)
    ] = None
    crypto: Annotated[LevelName | None, Meta(description="Keys, and what is done with them.", extra=LIVE)] = None
    storage: Annotated[LevelName | None, Meta(description="The store.", extra=LIVE)] = None
    hsm: Annotated[LevelName | None, Meta(description="Lanes, workers, devices.", extra=LIVE)] = None
    policy: Annotated[LevelName | None, Meta(description="Policy sets and decisions.", extra=LIVE)] = None
    audit: Annotated[LevelName | None, Meta(description="The audit log.", extra=LIVE)] = None
    lifecycle: Annotated[LevelName | None, Meta(description="Start, stop, configuration.", extra=LIVE)] = None


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The daemon's own log, on standard error. It is not the audit log."""

    level: Annotated[LevelName, Meta(description="The least important that is written.", extra=LIVE)] = "info"
    format: Annotated[
        Literal["json", "text"],
        Meta(
            description="json for machines (where journald listens: entries with priority and fields), text for people."
        ),
    ] = "json"
    slow_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=600,
            description="A request that takes longer is told of, with the time of each stage; 0: none is.",
            extra=LIVE,
        ),
    ] = 1.0
    levels: Levels = field(default_factory=Levels)


class Rate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit on requests, checked before policy. It concerns what `users`, `units`, `methods` and `vaults` say
    (whoever is left out is any), and a request that several concern needs all of them. More is answered
    request.rate_limited with `retry_after`; who goes on regardless is read from more slowly."""

    per_second: Annotated[
        float, Meta(ge=0.001, le=1_000_000, description="Requests, or items of batches, in the long run.", extra=LIVE)
    ]
    burst: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000_000,
            description="As many at once after a pause; as many as in a second when 0.",
            extra=LIVE,
        ),
    ] = 0
    per: Annotated[
        tuple[Literal["uid", "unit", "vault", "method"], ...],
        Meta(
            max_length=4,
            description='What is counted apart: any of "uid", "unit", "vault", "method". [] counts all together.',
            extra=LIVE,
        ),
    ] = ("uid",)
    users: Annotated[
        tuple[int, ...], Meta(max_length=1024, description="Only these users (names or uids).", extra=LIVE)
    ] = ()
    units: Annotated[
        tuple[Annotated[str, Meta(max_length=256)], ...],
        Meta(max_length=1024, description="Only these systemd units, as policies name them.", extra=LIVE),
    ] = ()
    methods: Annotated[
        tuple[Annotated[str, Meta(max_length=64)], ...],
        Meta(max_length=256, description='Only these methods: "key.sign", or "key.*" for all of a kind.', extra=LIVE),
    ] = ()
    vaults: Annotated[
        tuple[Annotated[str, Meta(max_length=64)], ...],
        Meta(max_length=1024, description="Only what is in these vaults.", extra=LIVE),
    ] = ()
    administrators: Annotated[
        bool,
        Meta(description="Whether it holds for administrators, too: they are who ends a flood.", extra=LIVE),
    ] = False


class Crypto(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What new keys, and new versions of keys, may be. Keys that are there already stay usable, whatever is written
    here. What is outside of it is answered key.unsupported. Who may make keys, and of which kind, the policies say."""

    algorithms: Annotated[
        tuple[Annotated[str, Meta(max_length=32)], ...],
        Meta(min_length=1, max_length=64, description="The algorithms, as `openk key create` names them.", extra=LIVE),
    ] = ALGORITHMS
    protections: Annotated[
        tuple[Literal["wrapped", "resident", "cached"], ...],
        Meta(
            min_length=1,
            max_length=3,
            description="Where they may live. Without `cached` no new key is ever used outside of the HSM.",
            extra=LIVE,
        ),
    ] = ("wrapped", "resident", "cached")
    rsa_bits: Annotated[
        Literal[2048, 3072, 4096],
        Meta(description="Of an RSA key, at least. NIST SP 800-57 part 1 asks for 3072 beyond 2030.", extra=LIVE),
    ] = 2048
    gcm_uses: Annotated[
        int,
        Meta(
            ge=1,
            le=1 << 32,
            description="Uses of one version of an AES-GCM key; then it is key.exhausted, until it is rotated. At most "
            "2^32 with random nonces (NIST SP 800-38D, 8.3).",
        ),
    ] = 1 << 32


class Backup(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Copies of the state that openkd makes by itself while it serves. What is in the HSM is not in them: the vendor's
    procedure backs that up. docs/operations.md has the rest, and how one is restored."""

    folder: Annotated[
        Path | None,
        Meta(
            description="Where they are put; none are made when left out. It belongs to the user openkd runs as, and "
            "nobody else may write there. On the disk of the state it is allowed, and of little use: that disk's loss "
            "is what backups are for. It must be there when openkd starts."
        ),
    ] = None
    every_seconds: Annotated[
        float,
        Meta(
            ge=1,
            le=31 * 86_400,
            description="Between two of them. Each is a whole copy of the store, read and hashed once more.",
            extra=LIVE,
        ),
    ] = 86_400.0
    keep: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="How many stay: the oldest goes when a newer one was verified, so there must be room for one "
            "more.",
            extra=LIVE,
        ),
    ] = 7
    warn_seconds: Annotated[
        Annotated[float, Meta(ge=1, le=366 * 86_400)] | None,
        Meta(
            description="Health is degraded, and the alert backup_old raised, when the newest is older; twice "
            "`every_seconds` when left out.",
            extra=LIVE,
        ),
    ] = None

    @property
    def old_after(self) -> float:
        """Seconds."""
        return 2 * self.every_seconds if self.warn_seconds is None else self.warn_seconds


class Tuning(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What measurements may ask for. The defaults are what openk is measured with (`python -m bench`)."""

    collect_after: Annotated[
        int,
        Meta(
            ge=700,
            le=100_000_000,
            description="Objects more than before, after which Python looks for cycles: a look takes milliseconds, and "
            "requests leave no cycles behind. Some 2,000 requests in flight stay below the default.",
            extra=LIVE,
        ),
    ] = 50_000
    switch_seconds: Annotated[
        float,
        Meta(
            ge=0.000_01,
            le=0.1,
            description="How long one of openkd's threads computes before another that waits gets its turn.",
            extra=LIVE,
        ),
    ] = 0.005
    rotation_seconds: Annotated[
        float,
        Meta(
            ge=1,
            le=86_400,
            description="Between the beginnings of two looks at all keys that [rotation.NAME] may concern.",
            extra=LIVE,
        ),
    ] = 60.0
    rotation_keys: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Keys looked at in a second meanwhile, for each of which the HSM opens up to three records. A "
            "look at a million takes three hours then.",
            extra=LIVE,
        ),
    ] = 100
    rotations_per_minute: Annotated[
        int,
        Meta(
            ge=1,
            le=60_000,
            description="Keys that openkd rotates by itself, at most, one after the other: a rule that is new, or a "
            "clock that was set forward, leads to no storm.",
            extra=LIVE,
        ),
    ] = 60
