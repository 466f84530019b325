"""`openkd`: start the daemon from a configuration file, or all of openk inside one folder for development."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from openk_daemon.config import Config, ConfigError, Loaded, read, read_development
from openk_daemon.config_sources import PREFIX

MISCONFIGURED: Final = 78
"""EX_CONFIG: starting again gains nothing before an operator changed something."""
_WORKERS_MOST: Final = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 after a stop, 78, or 75 when what was missing (an HSM) may be there later; 1 for a backup that is
    damaged."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.verify_backup is not None and parsed.restore is not None:
        parser.error("--restore verifies the backup itself: leave --verify-backup out")
    if parsed.replace and parsed.restore is None:
        parser.error("--replace needs --restore")
    # Copied: the process forgets its environment when it confines itself, and a reload needs these few again.
    environment = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    try:
        if parsed.verify_backup is not None:
            return _verify(parsed.verify_backup)
        if parsed.dev is not None:
            loaded = read_development(parsed.dev, parsed.workers, parsed.on_tracer, environment)
        else:
            loaded = read(parsed.config, environment)
        if parsed.show_config:
            _show(loaded)
        if parsed.check_config or parsed.show_config:
            if parsed.check_config:
                print(f"{parsed.config or parsed.dev}: well formed")
            return 0
        if parsed.restore is not None:
            return _restore(parsed.restore, loaded.config, replace=parsed.replace)
        return _supervise(parsed.dev, loaded.config) if parsed.dev and not parsed.supervised else _serve(loaded)
    except ConfigError as error:
        for mistake in error.mistakes:
            print(f"openkd: {mistake}", file=sys.stderr)
        return MISCONFIGURED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="openkd",
        description="openk's key management daemon.",
        epilog="Try it: `openkd --dev /tmp/openk`, then `openk --socket /tmp/openk/openkd.sock health`.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--config", type=Path, metavar="FILE", help="run with this configuration (docs/configuration.md)"
    )
    source.add_argument(
        "--dev", type=Path, metavar="DIR",
        help="run with everything in DIR: a SoftHSM2 token with a random PIN, state, policies to edit, the socket "
        "DIR/openkd.sock; whoever starts it is the administrator. Not for production.",
    )  # fmt: skip
    source.add_argument(
        "--verify-backup", type=Path, metavar="BACKUP", help="say whether this backup could be restored, and stop"
    )
    parser.add_argument(
        "--restore", type=Path, metavar="BACKUP",
        help="put this backup into the `state` folder of the configuration, once it was verified, and stop; no openkd "
        "may run on it",
    )  # fmt: skip
    parser.add_argument(
        "--replace", action="store_true", help="with --restore: move what is in the state folder aside; else refused"
    )
    parser.add_argument("--workers", type=_workers, default=1, metavar="N", help="with --dev: HSM worker processes (1)")
    parser.add_argument(
        "--on-tracer", choices=("log", "seal", "exit"), default="log",
        help="with --dev: what daemon and workers do when another process traces them (log)",
    )  # fmt: skip
    parser.add_argument("--check-config", action="store_true", help="read the configuration, say what is wrong, stop")
    parser.add_argument(
        "--show-config", action="store_true", help="print what would be in force, and where each value was set; stop"
    )
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    return parser


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _WORKERS_MOST:
        raise argparse.ArgumentTypeError(f"1 to {_WORKERS_MOST}")
    return int(text)


# --- --dev: the monitor starts workers and daemon, and starts them again ---


def _supervise(folder: Path, config: Config) -> int:
    from openk_hsm import monitor  # noqa: PLC0415 - the daemon itself needs none of this
    from openk_memory.environment import worker_environment  # noqa: PLC0415

    folder = Path(os.path.abspath(folder))
    token = _dev_token(folder)
    if token is None:
        return MISCONFIGURED
    environment = {**os.environ, "SOFTHSM2_CONF": str(folder / "softhsm2.conf")}
    (hsm,) = config.hsm.values()
    children = [
        monitor.Child(
            f"hsm-{number}",
            [
                *_python("openk_hsm"),
                "serve",
                "--uri",
                token,
                "--pin-file",
                str(folder / "pin"),
                "--socket",
                str(path),
                "--mode",
                "600",
                "--on-tracer",
                config.hardening.on_tracer,
                "--log-level",
                "debug" if (config.log.levels.hsm or config.log.level) == "debug" else "info",
                "--slow-seconds",
                str(config.log.slow_seconds),
            ],
            worker_environment(environment),
        )
        for number, path in enumerate(hsm.sockets)
    ]
    daemon = [*_python("openk_daemon"), "--dev", str(folder), "--workers", str(len(hsm.sockets)), "--supervised"]
    daemon += ["--on-tracer", config.hardening.on_tracer]
    drain = config.limits.drain_seconds + 5
    children.append(monitor.Child("openkd", daemon, dict(os.environ), drain=drain, essential=True))
    return monitor.run(children, pids=folder / "pids.json")


def _python(module: str) -> list[str]:
    # -P: not the current folder; -s: no user site. Not -I or -E: the workers need PYTHONMALLOC.
    return [sys.executable, "-sP", "-m", module]


def _dev_token(folder: Path) -> str | None:
    """The URI of the folder's token, made on the first start (in a process of its own: vendor code stays out)."""
    known = folder / "token-uri"
    if known.exists():
        return known.read_text().strip()
    made = subprocess.run(  # noqa: S603 - our own module, our own arguments
        [*_python("openk_hsm"), "dev-token", "--dir", str(folder), "--json"], stdout=subprocess.PIPE, check=False
    )
    if made.returncode:
        return None
    uri = str(json.loads(made.stdout)["uri"])
    partial = known.with_name("token-uri.new")
    partial.write_text(uri + "\n")
    partial.rename(known)
    return uri


def _show(loaded: Loaded) -> None:
    from openk_daemon.config_view import effective, origin  # noqa: PLC0415 - a daemon that serves does not need it yet

    for setting in effective(loaded.config):
        print(f"{setting.key} = {json.dumps(setting.value)}  # {origin(setting.key, loaded.origins)}")


def _verify(backup: Path) -> int:
    from openk_daemon.cli_backup import verify  # noqa: PLC0415 - a daemon that serves needs none of this

    return verify(backup)


def _restore(backup: Path, config: Config, *, replace: bool) -> int:
    from openk_daemon.cli_backup import restore  # noqa: PLC0415 - likewise

    return restore(backup, config, replace=replace)


def _serve(loaded: Loaded) -> int:
    from openk_daemon.process import serve  # noqa: PLC0415 - --help and mistakes in the configuration need no event loop

    return serve(loaded)


if __name__ == "__main__":
    sys.exit(main())
