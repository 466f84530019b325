"""`openkd` whose disk does not answer while DIR/stuck is there: its commit thread waits before it writes, as it would in
fdatasync(2). The store gives up after a second instead of ten.

    python tests/support/stuck_openkd.py --dev DIR
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[2]))

from openk_daemon.store.committer import Committer, Group, Item
from openk_daemon.store.sqlite import SqliteStore

SUPERVISED: Final = "--supervised"
DEADLINE: Final = 1.0


def stick() -> None:
    flag = Path(sys.argv[sys.argv.index("--dev") + 1]) / "state" / "stuck"
    write = Committer._write_group
    kinds = SqliteStore.__init__.__kwdefaults__
    assert kinds is not None
    kinds["deadline"] = DEADLINE

    def wait_and_write(self: Committer, items: list[Item]) -> Group:
        while flag.exists():
            time.sleep(0.02)
        return write(self, items)

    Committer._write_group = wait_and_write  # type: ignore[method-assign]


def main() -> int:
    from openk_daemon import cli  # noqa: PLC0415

    if SUPERVISED in sys.argv:
        stick()
    else:
        cli._python = lambda module: [  # type: ignore[attr-defined]
            sys.executable, "-s", *([__file__] if module == "openk_daemon" else ["-P", "-m", module]),
        ]  # fmt: skip
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
