"""Who connected, as the kernel tells it: a frozen value, made once per connection before a byte is parsed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """`unit`, `invocation` and `executable` are None where the kernel does not tell them (docs/policy.md).
    Equal callers get equal decisions, so everything policies may read is here and nothing else."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    unit: str | None
    invocation: str | None
    executable: str | None
    administrator: bool = False
    """Whoever started `openkd --dev`, or is listed as `administrators` in the config."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A connection's other end: the caller plus what is only for logs and limits."""

    caller: Caller
    pid: int
    connection: int
    audit: str
    """The caller as a JSON fragment for audit records, built once."""

    @property
    def owner(self) -> int:
        """Whose budget of locked memory it is: one a uid, never the pool's owner 0 (the daemon itself, without one)."""
        return self.caller.uid + 1
