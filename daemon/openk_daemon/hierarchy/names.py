"""Names of vaults, keys and secrets: checked once, here, before anything is looked up.

"payments/db/password" is the object "db/password" in the vault "payments".
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from openk_daemon.refusal import Refusal

VAULT_MOST: Final = 64  # characters; as in openk.wire.methods
NAME_MOST: Final = 256  # characters of the whole name, vault included

# Printable ASCII without spaces, quotes, control characters or "..": what can be typed in a shell, a policy file and
# a URL without quoting. Unicode is left out on purpose: two names that look the same would be two keys.
_COMPONENT: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9._@+=:-]*[A-Za-z0-9_@+=:-])?"
_VAULT: Final = re.compile(rf"{_COMPONENT}\Z")
_OBJECT: Final = re.compile(rf"({_COMPONENT})/({_COMPONENT}(?:/{_COMPONENT})*)\Z")


def check_vault(name: str) -> str:
    """The name itself. Raises Refusal(request.invalid)."""
    if len(name) > VAULT_MOST or _VAULT.match(name) is None:
        raise Refusal("request.invalid", f"a vault's name is 1 to {VAULT_MOST} letters, digits or ._@+=:-")
    return name


@lru_cache(maxsize=16384)
def split(name: str) -> tuple[str, str]:
    """Vault and name within it. Raises Refusal(request.invalid)."""
    match = _OBJECT.match(name) if len(name) <= NAME_MOST else None
    if match is None or len(match[1]) > VAULT_MOST:
        raise Refusal("request.invalid", "a name is VAULT/NAME: components of letters, digits or ._@+=:-")
    return match[1], match[2]
