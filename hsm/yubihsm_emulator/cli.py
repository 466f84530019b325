import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from typing import Final

from yubihsm_emulator.codes import Command
from yubihsm_emulator.device import Device
from yubihsm_emulator.door import FAULTS, Door
from yubihsm_emulator.faults import Action, Plan
from yubihsm_emulator.link import Link
from yubihsm_emulator.plan_reader import PlanError, read_json, read_toml
from yubihsm_emulator.state import StateError
from yubihsm_emulator.state_file import StateFile

USAGE_ERROR: Final = 2

_DESCRIPTION: Final = """\
A YubiHSM 2 (firmware 2.4.1) in software, behind the interface of Yubico's connector, for testing.

IT PROTECTS NOTHING. Keys lie open in memory, and in the state file; whoever can connect can change its faults
and, since the factory's password is known, do anything. Never give it a key that matters."""

_EPILOG: Final = f"""\
first steps:
  yubihsm-emulator                             listens where clients look: http://127.0.0.1:12345
  yubihsm-shell -a get-device-info             Yubico's tool, unchanged
  python: YubiHsm.connect("http://127.0.0.1:12345").create_session_derived(1, "password")

A new device has one object: authentication key 1, password `password`, which may do everything.
Without --state it forgets all when it ends; its sessions it always forgets.

faults: a plan in TOML or JSON, given by --faults or at run time at {FAULTS} (GET, PUT as JSON, DELETE):
  [[faults]]
  do = "error"                  # {", ".join(Action)}
  code = "STORAGE_FAILED"       # of do = "error"
  seconds = 0.5                 # of delay, reboot, unreachable
  commands = ["SIGN_HMAC"]      # which; all, if left out. Names: --list-commands
  after = 2                     # let so many pass first
  every = 1                     # then hit each n-th
  times = 1                     # so often; 0: without end
  chance = 1.0                  # and only with this probability (seed = N at the top makes it repeat)
  curl -X PUT -d '{{"faults": [{{"do": "reboot", "seconds": 5}}]}}' http://127.0.0.1:12345{FAULTS}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the emulator until SIGTERM or SIGINT; the exit status."""
    chosen = _parser().parse_args(arguments)
    if chosen.list_commands:
        print("\n".join(one.name for one in Command))
        return 0
    try:
        with contextlib.ExitStack() as stack:
            plan = _read_plan(chosen.faults)
            link = stack.enter_context(_device(chosen.state, chosen.serial, plan))
            door = stack.enter_context(Door(chosen.listen, link))
            _serve(door, chosen.ready_fd)
    except (StateError, PlanError, OSError) as error:
        print(f"yubihsm-emulator: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "yubihsm-emulator",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=_address,
        default=("127.0.0.1", 12345),
        help="where to listen (127.0.0.1:12345); port 0 takes a free one, told on standard output",
    )
    parser.add_argument("--state", metavar="FILE", help="keep the device in this file (made if missing, mode 0600)")
    parser.add_argument("--serial", metavar="N", type=_serial, help="serial number of a new device (random)")
    parser.add_argument("--faults", metavar="FILE", help="a plan of faults, .toml or .json")
    parser.add_argument(
        "--ready-fd", metavar="FD", type=int, help="write the URL to this descriptor too, and close it, when listening"
    )
    parser.add_argument("--list-commands", action="store_true", help="print the commands a plan can name, and end")
    return parser


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 0xFFFF:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:12345 or [::1]:0")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _serial(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 0xFFFF_FFFF:
        raise argparse.ArgumentTypeError(f"{text!r} is not a serial number from 1 to 4294967295")
    return int(text)


def _read_plan(path: str | None) -> Plan:
    if path is None:
        return Plan()
    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        return read_toml(text) if path.endswith(".toml") else read_json(text)
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error


@contextlib.contextmanager
def _device(path: str | None, serial: int | None, plan: Plan) -> Generator[Link]:
    """The device of the state file, booted, or a new one."""
    fresh = serial or 1 + int.from_bytes(os.urandom(4), "big") % 99_999_999
    if path is None:
        yield Link(Device(fresh), plan=plan)
        return
    with contextlib.closing(StateFile(path)) as file:
        found = file.load()
        if found is not None and serial not in {None, found.serial}:
            raise StateError(f"{path} is device {found.serial}, not {serial}")
        device = found or Device(fresh)
        if found is not None:
            device.boot()
        file.save(device)
        yield Link(device, save=lambda: file.save(device), plan=plan)


def _serve(door: Door, ready_fd: int | None) -> None:
    def stop(_signal: int, _frame: object) -> None:
        threading.Thread(target=door.shutdown).start()  # shutdown waits for serve_forever, which this frame interrupts

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    print(f"listening on {door.url} (serial {door.link.device.serial}; this emulator protects nothing)", flush=True)
    if ready_fd is not None:
        os.write(ready_fd, f"{door.url}\n".encode())
        os.close(ready_fd)
    door.serve_forever(poll_interval=0.1)
