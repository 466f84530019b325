from __future__ import annotations

from tests.support.custody_fixtures import leases

__all__ = ["leases"]
