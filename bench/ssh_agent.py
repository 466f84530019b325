"""ssh-agent with a P-256 key in SoftHSM2: the peer for one client that signs and waits."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pkcs11
from pkcs11.util.ec import encode_named_curve_parameters

from bench.baselines import LABEL, Missing, Token, finish


def start(token: Token, folder: Path, stack: ExitStack) -> tuple[Path, bytes]:
    """The agent's socket and the key's public blob. Raises Missing when OpenSSH is not there or refuses."""
    for program in ("ssh-agent", "ssh-add"):
        if shutil.which(program) is None:
            message = f"{program} is not installed: apt install openssh-client"
            raise Missing(message)
    _make_key(token)
    socket = folder / "agent.sock"
    # -P: only this module may be loaded; -D keeps it our child.
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(socket), "-P", f"{os.path.realpath(token.module)},{token.module}"],
        env=token.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    stack.callback(finish, agent)
    _wait_for(socket)
    asker = folder / "askpass"
    asker.write_text(f"#!/bin/sh\necho {token.pin}\n")
    asker.chmod(0o700)
    known = {
        **token.environment,
        "SSH_AUTH_SOCK": str(socket),
        "SSH_ASKPASS": str(asker),
        "SSH_ASKPASS_REQUIRE": "force",
    }
    added = subprocess.run(["ssh-add", "-s", token.module], env=known, capture_output=True, text=True, check=False)
    listed = subprocess.run(["ssh-add", "-L"], env=known, capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        kind, blob, *_ = line.split()
        if kind == "ecdsa-sha2-nistp256":
            return socket, base64.b64decode(blob)
    message = f"ssh-agent did not take the key: {(added.stderr or listed.stdout).strip()}"
    raise Missing(message)


def _make_key(token: Token) -> None:
    """A token object, in a process of its own: python-pkcs11 keeps the module loaded."""
    code = "from bench.ssh_agent import make_key; make_key()"
    known = {**token.environment, "OPENK_BENCH_MODULE": token.module}
    subprocess.run([sys.executable, "-c", code], env=known, input=token.pin, text=True, check=True)


def make_key() -> None:
    """Runs in the child: the PIN comes on standard input."""
    module = pkcs11.lib(os.environ["OPENK_BENCH_MODULE"])
    with module.get_token(token_label=LABEL).open(rw=True, user_pin=input()) as session:
        curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True).generate_keypair(
            store=True, label="agent", id=b"\x01"
        )


def _wait_for(socket: Path) -> None:
    for _ in range(200):
        if socket.exists():
            return
        time.sleep(0.01)
    message = "ssh-agent made no socket"
    raise Missing(message)
