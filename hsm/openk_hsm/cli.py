"""`openk-hsm`: the worker, and what an operator does with a token. Starts fast: argparse, lazy imports."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from openk_hsm.errors import HsmError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 for a refusal, 75 to be started again, 78 for what an operator must change."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except HsmError as error:
        print(f"openk-hsm: {error.code}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="openk-hsm", description="openk's side of an HSM.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run a worker: own the PIN and the module, serve openkd")
    _token_arguments(serve)
    serve.add_argument("--socket", required=True, type=Path, help="seqpacket socket to bind")
    serve.add_argument("--mode", default="660", help="the socket's mode, octal (default 660)")
    serve.add_argument("--state", type=Path, help="folder of the wrong-PIN latch (default: $STATE_DIRECTORY, else beside the socket)")
    serve.add_argument("--ready-fd", type=int, help="descriptor that gets a newline when the worker is ready")
    serve.add_argument("--no-hardening", action="store_true", help="for debuggers")
    serve.set_defaults(run=_serve)
    return parser


def _token_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--uri", required=True, help="such as 'pkcs11:token=openk?module-path=/usr/lib/softhsm/libsofthsm2.so'")
    pin = parser.add_mutually_exclusive_group()
    pin.add_argument("--pin-credential", metavar="NAME", help="systemd credential with the PIN")
    pin.add_argument("--pin-file", type=Path, metavar="PATH", help="file with the PIN")
    pin.add_argument("--pin-fd", type=int, metavar="N", help="open descriptor with the PIN")
    parser.add_argument("--allow-software", action="store_true", help="allow software: URIs, which protect nothing")


def _serve(parsed: argparse.Namespace) -> int:
    from openk_hsm.pin import PinSource  # noqa: PLC0415 - other commands do not need the worker
    from openk_hsm.worker import WorkerSettings, serve  # noqa: PLC0415

    inherited = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    state: Path = parsed.state or (Path(inherited) if inherited else parsed.socket.parent)
    settings = WorkerSettings(
        uri=parsed.uri,
        socket=parsed.socket,
        pin=PinSource(parsed.pin_credential or "", parsed.pin_file, parsed.pin_fd),
        state=state,
        mode=int(parsed.mode, 8),
        ready_fd=parsed.ready_fd,
        software=parsed.allow_software,
        harden=not parsed.no_hardening,
    )
    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
