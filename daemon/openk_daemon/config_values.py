"""What can be configured, as frozen values: each field with its unit, its range and the reason for it.

docs/configuration.md is generated from the descriptions here (`openk_daemon.config_reference`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from openk_daemon.config_aging import Retention, Rotation
from openk_daemon.config_running import LIVE, Backup, Crypto, Log, Rate, Tuning
from openk_daemon.config_watch import Alerts, Health, Metrics

MEBIBYTE: Final = 1 << 20
SOCKET_PATH_MOST: Final = 107
"""Bytes of a Unix socket's path: sun_path holds 108 with its final NUL (unix(7))."""


class ConfigError(Exception):
    """The daemon cannot start with this configuration. `str()` is the text for the operator, one mistake a line,
    each naming file, line where known, key and remedy. The text comes from configuration only: no secrets are there."""

    exit = 78  # EX_CONFIG, sysexits.h; the code table's daemon.misconfigured

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes: tuple[str, ...] = tuple(mistakes)
        super().__init__("\n".join(mistakes))


class Socket(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Unix socket that clients connect to. Under socket activation systemd's socket is used instead."""

    path: Annotated[
        Path, Meta(description="Where it is. At most 107 bytes: that is what the kernel's address holds.")
    ] = Path("/run/openk/openkd.sock")
    mode: Annotated[
        int,
        Meta(
            ge=0,
            le=0o777,
            description="Its permissions, written octal. Who may connect is not who may do something: "
            "policies say that.",
        ),
    ] = 0o660
    group: Annotated[
        str, Meta(max_length=256, description="The group that owns it; the daemon's own when empty. It must exist.")
    ] = ""


class Hsm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One HSM, by its workers (`openk-hsm serve`): they own the PIN and the vendor's module; here is only where they
    listen. Or a group: HSMs with the same root keys, used as one. The first that is no member of a group is home: it
    has the audit key, the directory of vaults, and the vaults that name no other."""

    sockets: Annotated[
        tuple[Path, ...],
        Meta(min_length=1, max_length=64, description="A worker's socket each. Two workers do twice the work of one."),
    ] = ()
    group: Annotated[
        tuple[Annotated[str, Meta(max_length=32)], ...],
        Meta(
            min_length=1,
            max_length=16,
            description="Instead of sockets: the names of the members, each an [hsm.NAME] of its own. They share "
            "the work; while one fails the others do it (docs/hsm.md).",
        ),
    ] = ()
    uri: Annotated[
        str, Meta(max_length=1024, description="For information: which token this is (RFC 7512). Never with a PIN.")
    ] = ""
    handoff_bytes: Annotated[
        int,
        Meta(
            ge=64 << 10,
            le=64 << 20,
            description="Locked memory shared with each worker, for keys and derived bytes on their way.",
        ),
    ] = MEBIBYTE
    deadline_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=600,
            description="A worker that has not answered by then is killed and replaced. Longer than the "
            "slowest operation: RSA-4096 generation.",
        ),
    ] = 30.0
    operation_seconds: Annotated[
        float, Meta(ge=0.1, le=600, description="An operation is answered by then, with hsm.timeout if need be.")
    ] = 10.0
    generate_seconds: Annotated[
        float, Meta(ge=0.1, le=3600, description="Likewise the making of a key: RSA-4096 takes seconds.")
    ] = 60.0
    breaker_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=600,
            description="Without a worker for so long requests no longer wait: hsm.unavailable at once, "
            "until one is back.",
        ),
    ] = 10.0
    keep_alive_seconds: Annotated[
        float,
        Meta(
            ge=1,
            le=3600,
            description="A worker proves this often that its sessions and the device still answer. Some devices end "
            "sessions that are idle: a YubiHSM after 30 seconds.",
        ),
    ] = 20.0
    quarantine_deaths: Annotated[
        int,
        Meta(
            ge=2,
            le=16,
            description="An operation under which so many workers died, all but the first with nothing else in "
            "flight, is answered hsm.interrupted and not done again.",
        ),
    ] = 3
    quarantine_seconds: Annotated[
        float, Meta(ge=0, le=86_400, description="For so long the same connection's operations like it are refused.")
    ] = 60.0
    stall_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=600,
            description="As a member of a group: with an answer overdue for so long it gets no more work while "
            "another member serves.",
        ),
    ] = 2.0


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one client, and all together, may take. Nothing queues, waits or grows without one of these."""

    message_bytes: Annotated[
        int, Meta(ge=1 << 10, le=16 << 20, description="One message. It lies in locked memory, so it is bounded.")
    ] = MEBIBYTE
    nesting: Annotated[int, Meta(ge=4, le=32, description="Depth of a message. The protocol itself needs 5.")] = 8
    in_flight: Annotated[
        int,
        Meta(
            ge=1,
            le=4096,
            description="Requests of one connection that are not answered yet; then the daemon stops reading from it.",
        ),
    ] = 64
    message_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=600,
            description="From the first byte of a message to its last: a slow sender holds locked memory.",
        ),
    ] = 10.0
    connections: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Open connections, one file descriptor each (see LimitNOFILE=).",
            extra=LIVE,
        ),
    ] = 10_000
    connections_per_uid: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Of those, what one user may have open; administrators may have all. More than that are "
            "closed at once.",
            extra=LIVE,
        ),
    ] = 10_000
    locked_memory_bytes: Annotated[
        int,
        Meta(
            ge=1 << 20,
            le=1 << 40,
            description="The pool for messages, keys and secrets. The default fits RLIMIT_MEMLOCK's usual 8 MiB beside "
            "two hand-off regions; openkd refuses to start where pool and regions together exceed the limit.",
        ),
    ] = 5 * MEBIBYTE
    locked_memory_per_uid_bytes: Annotated[
        int,
        Meta(
            ge=1 << 16,
            le=1 << 40,
            description="Of that, what the messages of one user may take, so that nobody starves the others.",
        ),
    ] = 4 * MEBIBYTE
    queue: Annotated[
        int,
        Meta(ge=1, le=1 << 20, description="Operations that may wait for an HSM; more are answered hsm.busy at once."),
    ] = 4096
    queue_per_client: Annotated[
        int, Meta(ge=1, le=1 << 20, description="Of those, what one connection may have waiting.")
    ] = 1024
    decisions: Annotated[
        int, Meta(ge=1, le=1 << 20, description="Policy decisions remembered until the next reload, about 1 kB each.")
    ] = 16_384
    drain_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=600,
            description="What requests in flight get at a stop. Shorter than TimeoutStopSec=.",
            extra=LIVE,
        ),
    ] = 10.0


class Cache(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of protection `cached`, in use outside the HSM: how long and how often before they are fetched again."""

    key_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=86_400,
            description="Then the key is wiped and unwrapped anew: a stolen memory image is worth that much less.",
            extra=LIVE,
        ),
    ] = 300.0
    key_uses: Annotated[int, Meta(ge=1, le=1 << 32, description="Uses before that.", extra=LIVE)] = 1_000_000
    keys: Annotated[
        int, Meta(ge=1, le=1 << 20, description="Keys held at once; the least recently used goes first.")
    ] = 1024


class Audit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often the HSM signs the head of the audit log, and what the log is called."""

    checkpoint_seconds: Annotated[
        float,
        Meta(ge=0.1, le=86_400, description="The oldest entry without a signature is at most this old.", extra=LIVE),
    ] = 10.0
    checkpoint_entries: Annotated[
        int, Meta(ge=1, le=1 << 24, description="Entries without a signature, at most.", extra=LIVE)
    ] = 4096
    origin: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=128,
            pattern=r"^[^\s+]+$",
            description="The log's name in its checkpoints (C2SP tlog-checkpoint: no spaces, no plus). "
            "Unique to this log, and for ever.",
        ),
    ] = "openk.local/audit"
    reserve_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 40,
            description="Free disk below which requests are refused, so that the log can still tell of it.",
            extra=LIVE,
        ),
    ] = 64 * MEBIBYTE


OnTracer = Literal["log", "seal", "exit"]


class Hardening(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How openkd defends itself beyond what it always does (docs/threat-model.md)."""

    on_tracer: Annotated[
        OnTracer,
        Meta(
            description="When another process traces openkd, which only root can: tell of it; seal, until an operator "
            "unseals; or wipe every key and end with status 78. Workers have --on-tracer of their own.",
            extra=LIVE,
        ),
    ] = "log"


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it. Paths are absolute. Valid as it stands: whoever holds one need not check it again."""

    state: Annotated[
        Path, Meta(description="The folder of the store and the audit log. Nobody else may write there.")
    ] = Path("/var/lib/openk")
    policies: Annotated[Path, Meta(description="The folder of the Cedar policies and their schema.")] = Path(
        "/etc/openk/policies"
    )
    administrators: Annotated[
        tuple[int, ...],
        Meta(
            max_length=1024,
            description="Users (names or uids) for whom policies see `principal.administrator`. Names "
            "are looked up at the start.",
        ),
    ] = (0,)
    hsm: Annotated[dict[str, Hsm], Meta(description="One table for each HSM: [hsm.NAME].")] = field(
        default_factory=dict[str, Hsm]
    )
    user: Annotated[
        str,
        Meta(
            max_length=256,
            description="Whom to become when started as root. Without it root is refused; the units start openkd as "
            "its own user and need none.",
        ),
    ] = ""
    socket: Socket = field(default_factory=Socket)
    limits: Limits = field(default_factory=Limits)
    cache: Cache = field(default_factory=Cache)
    crypto: Crypto = field(default_factory=Crypto)
    audit: Audit = field(default_factory=Audit)
    backup: Backup = field(default_factory=Backup)
    log: Log = field(default_factory=Log)
    metrics: Metrics = field(default_factory=Metrics)
    health: Health = field(default_factory=Health)
    alerts: Alerts = field(default_factory=Alerts)
    rate: Annotated[dict[str, Rate], Meta(description="One table for each limit: [rate.NAME].")] = field(
        default_factory=dict[str, Rate]
    )
    rotation: Annotated[dict[str, Rotation], Meta(description="One table for each rule: [rotation.NAME].")] = field(
        default_factory=dict[str, Rotation]
    )
    retention: Retention = field(default_factory=Retention)
    tuning: Tuning = field(default_factory=Tuning)
    hardening: Hardening = field(default_factory=Hardening)
    development: bool = False
    """True only for `openkd --dev`; no file can set it. It permits what production refuses (the software HSM)."""


def decode(value: object, type_: object) -> object:
    """`value` as the annotated type of a field. Raises msgspec.ValidationError."""
    return msgspec.convert(value, type_, strict=True, dec_hook=_path)


def _path(type_: type, value: object) -> Path:
    if type_ is not Path:
        raise NotImplementedError(f"no configuration field has type {type_}")
    if not isinstance(value, str):
        raise ValueError(f"Expected a path in quotes, got `{type(value).__name__}`")  # noqa: TRY004 - msgspec expects it
    path = Path(value)
    if not path.is_absolute() or "\0" in value:
        raise ValueError("Expected an absolute path (the daemon has no working folder)")
    return path
