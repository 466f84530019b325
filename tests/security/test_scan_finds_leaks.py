"""The scan catches a leak in every form, and finds nothing in a process that keeps the rules.

The two go together: a scan that finds nothing is worth what it finds when there is something."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import dedent

import pytest

from openk_memory.region import Kind
from tests.support.scan import forms, mappings, scan, unlocked

PREAMBLE = """
import socket, sys, os
sock = socket.socket(fileno=int(sys.argv[1]))
def report(word):
    sock.send(word)
    sock.recv(1)
"""


@dataclass
class Victim:
    pid: int
    sock: socket.socket

    def give(self, secret: bytes) -> None:
        """Hand the secret over and wait until the process has done its work with it."""
        self.sock.send(secret)
        assert self.sock.recv(10) == b"done"
        time.sleep(0.02)  # it is back in recv then

    def proceed(self) -> None:
        self.sock.send(b"x")


@contextmanager
def victim(code: str, *arguments: str) -> Iterator[Victim]:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-c", PREAMBLE + dedent(code), str(theirs.fileno()), *arguments],
                pass_fds=[theirs.fileno()],
            )
        try:
            yield Victim(child.pid, ours)
        finally:
            ours.close()
            try:
                child.wait(10)
            finally:
                child.kill()


LEAKS = {
    "raw": "keep = sock.recv(32)",
    "a forgotten object": "sock.recv(32)",
    "a dropped buffer": "keep = bytearray(sock.recv(32)) * 1000; del keep",
    "one piece": "data = bytearray(100); sock.recv_into(data, 32); keep = bytes(data[8:16]); data[:] = bytes(100)",
    "reversed": "data = bytearray(32); sock.recv_into(data); keep = bytes(data[::-1]); data[:] = bytes(32)",
    "hex": "data = bytearray(32); sock.recv_into(data); keep = data.hex(); data[:] = bytes(32)",
    "base64": (
        "import base64; data = bytearray(33); sock.recv_into(memoryview(data)[1:]);"
        "keep = base64.b64encode(data); data[:] = bytes(33)"
    ),
    "in a PROT_NONE page": (
        "import ctypes, mmap; page = mmap.mmap(-1, 4096); sock.recv_into(page, 32);"
        "at = ctypes.addressof(ctypes.c_char.from_buffer(page));"
        "assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(at), 4096, 0) == 0"
    ),
    "on the stack of a thread": (  # ioctl works on a copy on its stack; no such number, so it says no
        "import fcntl, threading; from contextlib import suppress; from openk_memory.region import Region\n"
        "def run():\n"
        "    sock.recv_into(region.view)\n"
        "    with suppress(OSError): fcntl.ioctl(sock, 0, region.view, True)\n"
        "    region.view[:] = bytes(32)\n"
        "    done.set()\n"
        "    hold.wait()\n"
        "region, hold, done = Region(32), threading.Event(), threading.Event()\n"
        "threading.Thread(target=run, daemon=True).start()\n"
        "done.wait()"
    ),
    "inside a live cipher object": (
        "from cryptography.hazmat.primitives.ciphers.aead import AESGCM; data = bytearray(32); sock.recv_into(data);"
        "keep = AESGCM(data); data[:] = bytes(32); from openk_memory.scrub import scrub; scrub()"
    ),
}
FORMS = {"one piece": "piece", "reversed": "reversed", "hex": "hex", "base64": "base64"}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_found(leak: str) -> None:
    canary, other = os.urandom(32), os.urandom(32)
    with victim(f"{LEAKS[leak]}\nreport(b'done')") as process:
        process.give(canary)
        hits = scan(process.pid, [other, canary])
        assert {hit.needle for hit in hits} == {1}
        found = unlocked(hits)
        assert FORMS.get(leak, "raw") in {hit.form for hit in found}
        assert any(not hit.in_registers for hit in found)
        assert canary.hex() not in repr(hits)
        process.proceed()  # it lives on


GOOD = """
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from openk_memory.pool import Pool
from openk_memory.region import Kind
from openk_memory.scrub import scrub
kind, moment = Kind(sys.argv[2]), sys.argv[3]
pool = Pool(1 << 20, kind=kind)
sock.send(b"ready")
with pool.lease(64) as secret, pool.lease(32) as key, pool.lease(256) as opened:
    sock.recv_into(secret.view[:32])
    key.view[:] = bytes(range(32))
    cipher = AESGCM(key.view)
    sealed = bytearray(48)
    cipher.encrypt_into(bytes(12), secret.view[:32], None, sealed)
    secret.view[32:] = secret.view[:32]
    cipher.decrypt_into(bytes(12), sealed, None, opened.view[:32])
    inner = AESGCM(opened.view[:32])   # the secret is a data key as well
    inner.encrypt_into(bytes(12), b"public", None, bytearray(22))
    del cipher, inner
    scrub()
    if moment == "held":
        report(b"done")
if moment == "idle":
    report(b"done")
"""


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("moment", ["held", "idle"])
def test_a_process_that_keeps_the_rules_shows_nothing(kind: Kind, moment: str) -> None:
    canary = os.urandom(32)
    with victim(GOOD, kind, moment) as process:
        assert process.sock.recv(10) == b"ready"
        process.give(canary)
        hits = scan(process.pid, [canary])
        assert unlocked(hits) == []
        if moment == "idle" or kind is Kind.SECRET:
            assert hits == []
        else:  # in use, and in locked memory that the scan can read: this is what it looks like
            assert {hit.form for hit in hits} == {"raw"}
            assert len(hits) == 3
        process.proceed()


def test_a_frozen_process_goes_on_unharmed() -> None:
    code = """
    import threading, time
    count = [0]
    def work():
        while True:
            count[0] += 1
            time.sleep(0.0001)
    for _ in range(5):
        threading.Thread(target=work, daemon=True).start()
    while sock.recv(1):
        sock.send(count[0].to_bytes(8, "big"))
    """
    with victim(code) as process:
        counts: list[int] = []
        for _ in range(4):
            process.proceed()
            counts.append(int.from_bytes(process.sock.recv(8), "big"))
            assert scan(process.pid, [os.urandom(16)]) == []
            time.sleep(0.01)
        assert counts == sorted(set(counts))


def test_all_mappings_and_registers_are_seen() -> None:
    with victim("sock.recv(1); report(b'done')") as process:
        process.give(b"x")
        names = {mapping.name for mapping in mappings(process.pid)}
        assert {"[stack]", "[heap]", "anonymous"} <= names
        assert any("libc" in name for name in names)


def test_needles_are_long_enough() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        list(forms(b"short"))


def test_a_process_that_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises((ProcessLookupError, FileNotFoundError)):
        scan(child.pid, [os.urandom(16)])
