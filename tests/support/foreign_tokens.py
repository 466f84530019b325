"""Tokens that are not SoftHSM2, from Debian's packages, each in a folder of its own: nothing of the machine's is used.

opencryptoki   its paths are compiled in, so it lives in mount and IPC namespaces with the folder mounted over them; its
               slot daemon runs as long as the context. Whoever is not root gets a user namespace too.
NSS softokn    a database folder, named by the string that C_Initialize gets.
tpm2-pkcs11    a store folder, and a software TPM of its own on two loopback ports.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import trio

from openk_hsm.dialling import Limits
from openk_hsm.errors import HsmError
from tests.support.tokens import lane_over, worker

LIBRARIES = f"/usr/lib/{os.uname().machine}-linux-gnu"
OPENCRYPTOKI = f"{LIBRARIES}/pkcs11/libopencryptoki.so"
SOFTOKN = f"{LIBRARIES}/libsoftokn3.so"
TPM2 = f"{LIBRARIES}/pkcs11/libtpm2_pkcs11.so"
PIN = "user1234"
SO_PIN = "so123456"
WITHIN = 10.0

_NAMESPACE = """
set -eu
mkdir -p "$1/etc" "$1/lib/swtok/TOK_OBJ"
sed '/^pkcs11:/d' /etc/group >"$1/group"
echo pkcs11:x:0:root >>"$1/group"
printf 'version opencryptoki-3.1\\nslot 3\\n{\\nstdll = libpkcs11_sw.so\\n}\\n' >"$1/etc/opencryptoki.conf"
mount --make-rprivate /
mount --bind "$1/group" /etc/group
mount --bind "$1/etc" /etc/opencryptoki
mount --bind "$1/lib" /var/lib/opencryptoki
mount -t tmpfs -o mode=755 none /run
mount -t tmpfs none /dev/shm
mkdir -p /run/lock/opencryptoki/swtok
exec /usr/sbin/pkcsslotd -f
"""
_INITIALISE = f"""
set -eu
echo openk-foreign | /usr/sbin/pkcsconf -I -c 3 -S 87654321
/usr/sbin/pkcsconf -P -c 3 -S 87654321 -n {SO_PIN}
/usr/sbin/pkcsconf -u -c 3 -S {SO_PIN} -n tmp12345
/usr/sbin/pkcsconf -p -c 3 -U tmp12345 -n {PIN}
"""
_INITIALISE_TPM = """
import sys
from openk_hsm.pkcs11.initialise import initialise_token
initialise_token(sys.argv[1], "openk-foreign", *(memoryview(bytearray(pin.encode())) for pin in sys.argv[2:4]))
"""


@dataclass(frozen=True)
class ForeignToken:
    """A token with a user PIN. `prefix`: what a command that opens it begins with."""

    uri: str
    pin_file: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    prefix: tuple[str, ...] = ()

    @property
    def access(self) -> tuple[str, ...]:
        """Options of `openk-hsm`."""
        return ("--uri", self.uri, "--pin-file", str(self.pin_file), "--state", str(self.pin_file.parent))

    def cli(self, *arguments: str, status: int = 0) -> str:
        """`openk-hsm` on it; its stdout, or its stderr when a refusal is expected."""
        command = [*self.prefix, sys.executable, "-m", "openk_hsm.cli", *arguments]
        done = subprocess.run(
            command, env=dict(self.environment), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status, done.stderr
        return done.stderr if status else done.stdout


@contextmanager
def serving(token: ForeignToken, name: str = "s") -> Generator[Path]:
    """A worker on it; its socket."""
    socket_path = token.pin_file.parent / name
    with worker(token.uri, socket_path, token.pin_file, token.environment, prefix=token.prefix):
        yield socket_path


async def refusal_of(token: ForeignToken) -> HsmError:
    """What a daemon hears of a worker that cannot serve the token."""
    socket_path = token.pin_file.parent / "s"
    limits = Limits(handoff_bytes=64 << 10, breaker=0.4)
    with worker(token.uri, socket_path, token.pin_file, token.environment, prefix=token.prefix):
        async with lane_over([socket_path], limits=limits) as lane:
            with trio.fail_after(WITHIN):
                while True:
                    try:
                        await lane.ready()
                    except HsmError as error:
                        if not str(error).startswith("no worker"):  # a slow machine: the breaker was first
                            return error
                    else:
                        raise AssertionError("the worker serves")
                    await trio.sleep(0.01)


def _pin_file(folder: Path) -> Path:
    path = folder / "pin"
    path.write_text(PIN + "\n")
    path.chmod(0o600)
    return path


@contextmanager
def opencryptoki(folder: Path) -> Generator[ForeignToken]:
    """The software token of opencryptoki, initialised."""
    folder.mkdir(parents=True)
    alone = ["--user", "--map-root-user"] if os.geteuid() else []
    command = ["unshare", *alone, "--mount", "--ipc", "--kill-child", "sh", "-c", _NAMESPACE, "sh", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            _wait_for(Path(f"/proc/{daemon.pid}/root/run/pkcsslotd.socket"), daemon)
            enter = ("--user", "--preserve-credentials") if alone else ()
            prefix = ("nsenter", "--target", str(daemon.pid), "--mount", "--ipc", f"--wd={folder}", *enter)
            subprocess.run([*prefix, "sh", "-c", _INITIALISE], check=True, capture_output=True, timeout=WITHIN)
            uri = f"pkcs11:token=openk-foreign?module-path={OPENCRYPTOKI}"
            yield ForeignToken(uri, _pin_file(folder), prefix=prefix)
        finally:
            daemon.kill()


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + WITHIN
    while not path.exists():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise AssertionError(f"no {path}: {process.communicate()[1]}")
        time.sleep(0.01)


def softokn(folder: Path) -> ForeignToken:
    """NSS softokn with a fresh database and a password."""
    database = folder / "nss"
    database.mkdir(parents=True)
    pin = _pin_file(folder)
    command = ["certutil", "-N", "-d", f"sql:{database}", "-f", str(pin)]
    subprocess.run(command, check=True, capture_output=True, timeout=WITHIN)
    parameters = f"configdir='sql:{database}' certPrefix='' keyPrefix='' secmod='secmod.db' flags="
    query = f"module-path={SOFTOKN}&x-initialise={quote(parameters, safe='')}"
    return ForeignToken(f"pkcs11:token=NSS%20Certificate%20DB?{query}", pin)


@contextmanager
def tpm2(folder: Path) -> Generator[ForeignToken]:
    """tpm2-pkcs11 over a software TPM, initialised."""
    store, state = folder / "store", folder / "tpm"
    store.mkdir(parents=True)
    state.mkdir()
    port = _two_ports()
    command = [
        *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--flags", "not-need-init,startup-clear"),
        *("--server", f"type=tcp,port={port},bindaddr=127.0.0.1"),
        *("--ctrl", f"type=tcp,port={port + 1},bindaddr=127.0.0.1", "--pid", f"file={state}/pid"),
    ]
    environment = {
        **os.environ,
        "TPM2_PKCS11_STORE": str(store),
        "TPM2_PKCS11_TCTI": f"swtpm:host=127.0.0.1,port={port}",
        "TSS2_LOG": "all+NONE",
    }
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as simulator:
        try:
            _wait_for(state / "pid", simulator)
            initialise = [sys.executable, "-c", _INITIALISE_TPM, TPM2, SO_PIN, PIN]
            subprocess.run(initialise, env=environment, check=True, capture_output=True, timeout=3 * WITHIN)
            uri = f"pkcs11:token=openk-foreign?module-path={TPM2}"
            yield ForeignToken(uri, _pin_file(folder), environment)
        finally:
            simulator.kill()


def _two_ports() -> int:
    """The first of two free ports: TPM software expects its control channel on the next one."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
