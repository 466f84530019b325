"""`openkd` that counts, logs and watches nothing: what metrics and a log at info cost is the rest.

python -m bench.silent_openkd --dev DIR     for the row `watched` only
"""

from __future__ import annotations

import sys

from openk_daemon import cli


def silence() -> None:
    from openk_daemon import pipeline  # noqa: PLC0415 - the monitor needs none of this
    from openk_daemon.observe.log import Level, Log  # noqa: PLC0415
    from openk_daemon.observe.metrics import Metrics  # noqa: PLC0415
    from openk_daemon.settings import Settings  # noqa: PLC0415
    from openk_daemon.watch.watching import Watching  # noqa: PLC0415

    async def rest(self: Watching) -> None:
        """Nothing is looked at."""

    started = Settings.start

    def start(self: Settings) -> None:
        started(self)
        log: Log = vars(self)["_log"]
        log.set_levels(dict.fromkeys(log.levels, Level.CRITICAL))

    Metrics.request = Metrics.commit = Metrics.staged = lambda *_: None  # type: ignore[assignment,method-assign]
    pipeline.__dict__["SAMPLED"] = 1 << 60
    Watching.run = rest  # type: ignore[method-assign]
    Settings.start = start  # type: ignore[method-assign]


def main() -> int:
    if "--supervised" in sys.argv:
        silence()
    else:
        python = cli._python  # pyright: ignore[reportPrivateUsage]
        here = [sys.executable, "-sP", "-m", "bench.silent_openkd"]
        cli._python = lambda module: here if module == "openk_daemon" else python(module)  # pyright: ignore[reportPrivateUsage]
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
