"""`openk-hsm`: the worker, and what an operator does with a token. Starts fast: argparse, lazy imports."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openk_hsm.errors import HsmError
from openk_memory.errors import LockedMemoryError

if TYPE_CHECKING:
    from openk_hsm.provision import Access


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 for a refusal, 75 to be started again, 78 for what an operator must change."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except HsmError as error:
        print(f"openk-hsm: {error.code}: {error}", file=sys.stderr)
        return 1
    except LockedMemoryError as error:
        print(f"openk-hsm: {error}", file=sys.stderr)
        return 78
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="openk-hsm", description="openk's side of an HSM.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run a worker: own the PIN and the module, serve openkd")
    _token_arguments(serve)
    serve.add_argument("--socket", required=True, type=Path, help="seqpacket socket to bind")
    serve.add_argument("--mode", default="660", help="the socket's mode, octal (default 660)")
    serve.add_argument(
        "--state", type=Path, help="folder of the wrong-PIN latch (default: $STATE_DIRECTORY, else beside the socket)"
    )
    serve.add_argument("--ready-fd", type=int, help="descriptor that gets a newline when the worker is ready")
    serve.add_argument("--no-hardening", action="store_true", help="for debuggers")
    for access in ("read", "write"):
        serve.add_argument(
            f"--reach-{access}", action="append", default=[], type=Path, metavar="PATH",
            help=f"what the vendor's module must {access} besides what openk knows of (repeat it); "
            "the rest of the file system is then closed to it",
        )  # fmt: skip
    serve.add_argument(
        "--on-tracer", choices=("log", "seal", "exit"), default="log",
        help="when another process traces the worker: tell of it (default), log out until an operator unseals, or end",
    )  # fmt: skip
    serve.add_argument(
        "--reload-burst", type=int, default=10, metavar="N",
        help="how often the module may be loaded anew at once while the device is in trouble (default 10)",
    )  # fmt: skip
    serve.add_argument(
        "--reload-seconds", type=float, default=3.0, metavar="S", help="then once every so many seconds (default 3)"
    )
    serve.add_argument(
        "--log-level", choices=("debug", "info"), default="info",
        help="debug: a line for each operation, with the id of the client's request (default info: for those that the "
        "device refuses, that are slow, or that are done again)",
    )  # fmt: skip
    serve.add_argument(
        "--slow-seconds", type=float, default=1.0, metavar="S",
        help="an operation that takes longer in the device is told of; 0: none is (default 1)",
    )  # fmt: skip
    serve.set_defaults(run=_serve)
    init = commands.add_parser("init", help="create openk's root keys on the token")
    _token_arguments(init)
    init.add_argument("--state", type=Path, help="folder of the wrong-PIN latch (default: $STATE_DIRECTORY, else .)")
    init.add_argument("--complete", action="store_true", help="make what an interrupted run left out")
    init.add_argument("--json", action="store_true")
    init.set_defaults(run=_init)
    tokens = commands.add_parser("tokens", help="list the tokens that a PKCS#11 module shows")
    tokens.add_argument("--module", help="path of the module (default: SoftHSM2)")
    tokens.add_argument("--uri", help="instead: a pkcs11: URI, for its module and what that gets at its start")
    tokens.add_argument("--json", action="store_true")
    tokens.set_defaults(run=_tokens)
    unlatch = commands.add_parser("unlatch", help="allow one more try after a wrong PIN")
    unlatch.add_argument("--uri", required=True)
    unlatch.add_argument("--state", type=Path, required=True, help="the worker's state folder")
    unlatch.set_defaults(run=_unlatch)
    unseal = commands.add_parser("unseal", help="take the seal off a token's workers, without a daemon")
    unseal.add_argument("--uri", required=True)
    unseal.add_argument("--state", type=Path, required=True, help="the worker's state folder")
    unseal.set_defaults(run=_unseal)
    probe = commands.add_parser("probe", help="what the token really does: protections and algorithms")
    _token_arguments(probe)
    probe.add_argument("--state", type=Path, help="folder of the wrong-PIN latch (default: $STATE_DIRECTORY, else .)")
    probe.add_argument("--json", action="store_true")
    probe.add_argument("--markdown", action="store_true", help="the table of docs/algorithms.md")
    probe.set_defaults(run=_probe)
    setup = commands.add_parser(
        "yubihsm-setup", help="print what to type into yubihsm-shell before init: authentication key, log"
    )
    setup.add_argument("--uri", required=True, help="such as 'yubihsm:http://127.0.0.1:12345?auth-key=2'")
    setup.set_defaults(run=_yubihsm_setup)
    dev = commands.add_parser("dev-token", help="a SoftHSM2 token for development, with root keys, in a folder")
    dev.add_argument("--dir", required=True, type=Path)
    dev.add_argument("--module", default="", help="path of SoftHSM2's module")
    dev.add_argument(
        "--roots", type=Path, metavar="FILE",
        help="make the root keys of a fresh token from this file's bytes: tokens made from one file have the same, and "
        "can be tried as a group",
    )  # fmt: skip
    dev.add_argument("--json", action="store_true")
    dev.set_defaults(run=_dev_token)
    return parser


def _token_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--uri", required=True, help="such as 'pkcs11:token=openk?module-path=/usr/lib/softhsm/libsofthsm2.so'"
    )
    pin = parser.add_mutually_exclusive_group()
    pin.add_argument("--pin-credential", metavar="NAME", help="systemd credential with the PIN")
    pin.add_argument("--pin-file", type=Path, metavar="PATH", help="file with the PIN")
    pin.add_argument("--pin-fd", type=int, metavar="N", help="open descriptor with the PIN")
    parser.add_argument("--allow-software", action="store_true", help="allow software: URIs, which protect nothing")


def _state(parsed: argparse.Namespace, otherwise: Path) -> Path:
    given: Path | None = parsed.state
    inherited = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    return given or (Path(inherited) if inherited else otherwise)


def _access(parsed: argparse.Namespace) -> Access:
    from openk_hsm.footing import close_to_others  # noqa: PLC0415
    from openk_hsm.pin import PinSource  # noqa: PLC0415
    from openk_hsm.provision import Access  # noqa: PLC0415

    close_to_others()
    pin = PinSource(parsed.pin_credential or "", parsed.pin_file, parsed.pin_fd)
    return Access(parsed.uri, pin, _state(parsed, Path()), parsed.allow_software)


def _init(parsed: argparse.Namespace) -> int:
    from openk_hsm.provision import create_roots  # noqa: PLC0415
    from openk_hsm.roots import name_of  # noqa: PLC0415

    made = {name_of(root)[0]: root.spec.algorithm for root in create_roots(_access(parsed), complete=parsed.complete)}
    told = ", ".join(f"{label} ({algorithm})" for label, algorithm in made.items())
    answer = {"created": list(made), "algorithms": made}
    _show(parsed, answer, f"created: {told or 'nothing, all were there'}")
    return 0


def _tokens(parsed: argparse.Namespace) -> int:
    from dataclasses import asdict  # noqa: PLC0415

    from openk_hsm.pkcs11.discovery import list_tokens, load_module  # noqa: PLC0415
    from openk_hsm.provision import softhsm_module  # noqa: PLC0415
    from openk_hsm.uri import parse_uri  # noqa: PLC0415

    uri = parse_uri(parsed.uri) if parsed.uri else None
    module: str = uri.module if uri else parsed.module or softhsm_module()
    load_module(module, uri.initialise if uri else "")
    found = list_tokens(module)
    lines = [
        f"slot {token.slot}: {token.label!r} serial={token.serial or '-'} model={token.model}"
        + ("" if token.initialised else "  NOT INITIALISED")
        + ("" if token.user_pin or not token.initialised else "  NO USER PIN")
        + (f"  PIN {token.pin_trouble}" if token.pin_trouble else "")
        for token in found
    ]
    _show(parsed, {"module": module, "tokens": [asdict(token) for token in found]}, "\n".join(lines) or "no tokens")
    return 0


def _unlatch(parsed: argparse.Namespace) -> int:
    from openk_hsm.latch import Latch  # noqa: PLC0415

    cleared = Latch(parsed.state, parsed.uri).clear()
    print("the latch is cleared: workers try the PIN once more" if cleared else "no latch was set")
    return 0


def _unseal(parsed: argparse.Namespace) -> int:
    from openk_hsm.seal import Seal  # noqa: PLC0415

    cleared = Seal(parsed.state, parsed.uri).clear()
    print("the seal is gone: workers log in again" if cleared else "no seal was set")
    return 0


def _probe(parsed: argparse.Namespace) -> int:
    from openk_hsm import matrix  # noqa: PLC0415
    from openk_hsm.provision import opened  # noqa: PLC0415

    with opened(_access(parsed), roots=False) as (_, info):
        if parsed.markdown:
            print(matrix.markdown({f"{info.backend} {info.model} {info.firmware}": info}), end="")
        else:
            _show(parsed, matrix.as_json(info), matrix.table(info))
    return 0


def _yubihsm_setup(parsed: argparse.Namespace) -> int:
    from openk_hsm.uri import BadUri, parse_uri  # noqa: PLC0415
    from openk_hsm.yubihsm.setup import commands  # noqa: PLC0415

    uri = parse_uri(parsed.uri)
    if uri.scheme != "yubihsm":
        raise BadUri("yubihsm-setup is for yubihsm: URIs")
    print(commands(uri), end="")
    return 0


def _dev_token(parsed: argparse.Namespace) -> int:
    from openk_hsm.provision import make_dev_token  # noqa: PLC0415

    access = make_dev_token(parsed.dir, parsed.module, parsed.roots.read_bytes() if parsed.roots else b"")
    folder = parsed.dir.absolute()
    shown = {"uri": access.uri, "pin_file": str(folder / "pin"), "softhsm2_conf": str(folder / "softhsm2.conf")}
    _show(parsed, shown, "\n".join(f"{name}: {value}" for name, value in shown.items()))
    return 0


def _show(parsed: argparse.Namespace, value: object, text: str) -> None:
    import json  # noqa: PLC0415

    print(json.dumps(value, indent=2) if parsed.json else text)


def _serve(parsed: argparse.Namespace) -> int:
    from openk_hsm.pin import PinSource  # noqa: PLC0415 - other commands do not need the worker
    from openk_hsm.reach import Named  # noqa: PLC0415
    from openk_hsm.reloads import Pace  # noqa: PLC0415
    from openk_hsm.watch import Reaction  # noqa: PLC0415
    from openk_hsm.worker import WorkerSettings, serve  # noqa: PLC0415

    state = _state(parsed, parsed.socket.parent)
    settings = WorkerSettings(
        uri=parsed.uri,
        socket=parsed.socket,
        pin=PinSource(parsed.pin_credential or "", parsed.pin_file, parsed.pin_fd),
        state=state,
        mode=int(parsed.mode, 8),
        ready_fd=parsed.ready_fd,
        software=parsed.allow_software,
        harden=not parsed.no_hardening,
        reach=Named(parsed.reach_read, parsed.reach_write),
        on_tracer=Reaction(parsed.on_tracer),
        pace=Pace(max(1, parsed.reload_burst), max(0.01, parsed.reload_seconds)),
        debug=parsed.log_level == "debug",
        slow=max(0.0, parsed.slow_seconds),
    )
    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
