"""What `vault.*` and `secret.*` return."""

from __future__ import annotations

from dataclasses import dataclass

from openk.secret import Secret


@dataclass(frozen=True, slots=True)
class Vault:
    """`created`: RFC 3339. `hsm`: the configured name of the HSM that its keys live on; empty from older daemons."""

    vault: str
    created: str
    hsm: str = ""


@dataclass(frozen=True, slots=True)
class SecretVersion:
    secret: str
    version: int


@dataclass(frozen=True, slots=True)
class SecretValue:
    """`value` or `fields`, as it was put. `created`: RFC 3339."""

    value: Secret | None
    fields: dict[str, Secret] | None
    version: int
    created: str


@dataclass(frozen=True, slots=True)
class SecretSummary:
    secret: str
    version: int
    created: str


@dataclass(frozen=True, slots=True)
class SecretDeleted:
    """`deleted`: how many versions."""

    secret: str
    deleted: int
