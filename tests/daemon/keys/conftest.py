from __future__ import annotations

from tests.support.custody_fixtures import custody, leases

__all__ = ["custody", "leases"]
