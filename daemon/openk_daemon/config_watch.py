"""What can be configured about watching openkd: where metrics are served, how health is asked for, when to alarm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, field

from openk_daemon.config_running import LIVE

_Reached = Annotated[float, Meta(ge=0, le=1e15)]
"""What a signal can be, the bytes of a large disk among it."""


class Metrics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where metrics and health are served over HTTP (/metrics, /livez, /readyz) besides the methods system.metrics and
    system.health."""

    socket: Annotated[Path | None, Meta(description="A Unix socket that speaks HTTP; none when left out.")] = None
    listen: Annotated[
        str,
        Meta(
            max_length=64,
            pattern=r"^(|(127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\]|localhost):\d{1,5})$",
            description='The same over TCP, on loopback only: "127.0.0.1:9464"; nothing when empty. Every local user '
            "may read it then. The shipped unit has no network: it needs PrivateNetwork=no and AF_INET.",
        ),
    ] = ""


class Health(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How openkd looks whether it is well. Each look has a time limit, and nobody who asks for health waits for one."""

    probe_seconds: Annotated[
        float,
        Meta(
            ge=1,
            le=3600,
            description="Between two round trips of each HSM: a key is wrapped, unwrapped and used, or data sealed and "
            "opened where the device wraps no keys.",
            extra=LIVE,
        ),
    ] = 10.0
    probe_limit_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=600,
            description="A round trip that takes longer is told of as trouble, while it lasts.",
            extra=LIVE,
        ),
    ] = 2.0
    disk_free_share: Annotated[
        float,
        Meta(ge=0, le=1, description="Degraded when less of the disk that holds the state is free.", extra=LIVE),
    ] = 0.02
    clock_step_seconds: Annotated[
        float,
        Meta(
            ge=0.01,
            le=86_400,
            description="Degraded for ten minutes when the wall clock was set by more than that: certificates, records "
            "and limits in time speak of it.",
            extra=LIVE,
        ),
    ] = 2.0
    policy_age_days: Annotated[
        float,
        Meta(ge=0, le=36_500, description="Degraded when no policy was looked at for so long; 0: never.", extra=LIVE),
    ] = 0.0


class Threshold(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One alert's own numbers, where they differ from the built-in ones: docs/operations.md has them all."""

    enabled: Annotated[bool, Meta(description="Whether it is raised at all.", extra=LIVE)] = True
    raise_at: Annotated[_Reached | None, Meta(description="Raised when the signal reaches this.", extra=LIVE)] = None
    clear_at: Annotated[
        _Reached | None,
        Meta(description="Cleared when it is back at this: not on the other side of raise_at.", extra=LIVE),
    ] = None
    for_seconds: Annotated[
        Annotated[float, Meta(ge=0, le=86_400)] | None,
        Meta(description="For so long it must have been so before it is raised.", extra=LIVE),
    ] = None


class Alerts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Alerts that openkd raises by itself: in its log, in metrics and to whoever asks system.alerts, `openk alerts`."""

    clear_seconds: Annotated[
        float,
        Meta(ge=0, le=86_400, description="For so long it must be well again before an alert is cleared.", extra=LIVE),
    ] = 30.0
    hsm_down: Threshold = field(default_factory=Threshold)
    hsm_workers: Threshold = field(default_factory=Threshold)
    hsm_slow: Threshold = field(default_factory=Threshold)
    hsm_restarts: Threshold = field(default_factory=Threshold)
    hsm_alarm: Threshold = field(default_factory=Threshold)
    audit_refusing: Threshold = field(default_factory=Threshold)
    audit_unsigned: Threshold = field(default_factory=Threshold)
    store_failing: Threshold = field(default_factory=Threshold)
    commit_slow: Threshold = field(default_factory=Threshold)
    disk_low: Threshold = field(default_factory=Threshold)
    memory_high: Threshold = field(default_factory=Threshold)
    descriptors_high: Threshold = field(default_factory=Threshold)
    errors: Threshold = field(default_factory=Threshold)
    internal: Threshold = field(default_factory=Threshold)
    slow: Threshold = field(default_factory=Threshold)
    log_dropped: Threshold = field(default_factory=Threshold)
    clock_step: Threshold = field(default_factory=Threshold)
    rotation_overdue: Threshold = field(default_factory=Threshold)
    backup_old: Threshold = field(default_factory=Threshold)
    sealed: Threshold = field(default_factory=Threshold)
