"""vault.*, secret.*"""

from __future__ import annotations

from collections.abc import Mapping

from openk.answers import Reply
from openk.operation import Operation, operate
from openk.results import SecretDeleted, SecretSummary, SecretValue, SecretVersion, Vault
from openk.secret import Buffer


def create(vault: str, *, hsm: str | None = None) -> Operation[Vault]:
    """Create a vault, its keys on the HSM of that configured name; the first one when left out."""
    return operate("vault.create", _vault, vault=vault, hsm=hsm)


def list_vaults(*, after: str | None = None, limit: int | None = None) -> Operation[list[Vault]]:
    """Vaults in the order of their names, behind `after`; at most 1000."""
    return operate(
        "vault.list", lambda reply: [_vault(one) for one in reply.replies("vaults")], after=after, limit=limit
    )


def describe(vault: str) -> Operation[Vault]:
    """Describe a vault."""
    return operate("vault.describe", _vault, vault=vault)


def put(
    secret: str,
    value: Buffer | None = None,
    *,
    fields: Mapping[str, Buffer] | None = None,
    expected: int | None = None,
) -> Operation[SecretVersion]:
    """Keep `value`, or a map of named values, as the next version. `expected`: fail unless this is the newest
    version now (0: there is none yet)."""
    return operate(
        "secret.put",
        lambda reply: SecretVersion(reply.text("secret"), reply.integer("version")),
        secret=secret,
        expected=expected,
        value=value,
        fields=fields,
    )


def get(secret: str, *, version: int | None = None) -> Operation[SecretValue]:
    """Read a secret; the newest version when left out."""
    return operate("secret.get", _value, secret=secret, version=version)


def list_secrets(vault: str, *, after: str | None = None, limit: int | None = None) -> Operation[list[SecretSummary]]:
    """Secrets of a vault in the order of their names, behind `after`; at most 1000."""
    return operate("secret.list", _summaries, vault=vault, after=after, limit=limit)


def delete(secret: str, *, version: int | None = None) -> Operation[SecretDeleted]:
    """Delete a secret with all versions, or one version."""
    return operate(
        "secret.delete",
        lambda reply: SecretDeleted(reply.text("secret"), reply.integer("deleted")),
        secret=secret,
        version=version,
    )


def _vault(reply: Reply) -> Vault:
    return Vault(reply.text("vault"), reply.text("created"), reply.text("hsm") if reply.has("hsm") else "")


def _value(reply: Reply) -> SecretValue:
    return SecretValue(
        reply.secret("value") if reply.has("value") else None,
        reply.secrets("fields") if reply.has("fields") else None,
        reply.integer("version"),
        reply.text("created"),
    )


def _summaries(reply: Reply) -> list[SecretSummary]:
    return [
        SecretSummary(one.text("secret"), one.integer("version"), one.text("created"))
        for one in reply.replies("secrets")
    ]
