"""`openkd` whose messages, keys and answers lie in ordinary memory, never wiped: what locked memory costs is the rest.

python -m bench.plain_openkd --dev DIR     for the row `locked` only; it protects nothing
"""

from __future__ import annotations

import sys

from openk_daemon import cli
from openk_memory.pool import Pool


class PlainLease:
    """What a lease looks like, with nothing behind it."""

    __slots__ = ("holds", "view")

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))
        self.holds = 1

    def hold(self) -> PlainLease:
        return self

    def release(self) -> None:
        """It is the collector's."""

    def __enter__(self) -> PlainLease:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class PlainPool(Pool):
    def lease(self, size: int, owner: int = 0) -> PlainLease:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Without budget, wiping or wait."""
        del owner
        return PlainLease(size)


def main() -> int:
    if "--supervised" in sys.argv:
        from openk_daemon.wiring import ground  # noqa: PLC0415 - the monitor needs no event loop

        ground.__dict__["Pool"] = PlainPool
    else:
        python = cli._python  # pyright: ignore[reportPrivateUsage]
        here = [sys.executable, "-sP", "-m", "bench.plain_openkd"]
        cli._python = lambda module: here if module == "openk_daemon" else python(module)  # pyright: ignore[reportPrivateUsage]
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
