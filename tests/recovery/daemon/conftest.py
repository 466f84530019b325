from __future__ import annotations

from tests.support.daemon import template

__all__ = ["template"]
