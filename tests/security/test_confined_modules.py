"""Workers of modules that are not SoftHSM2's are confined as its are, without anybody naming a path: they serve, and reach
nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_hsm.pkcs11.places import Places, places_of
from openk_hsm.uri import HsmUri, parse_uri
from tests.support.foreign_tokens import OPENCRYPTOKI, SOFTOKN, ForeignToken, opencryptoki, softokn

SERVE = """
import ctypes, os, sys
from pathlib import Path
from openk_hsm.pin import PinSource
from openk_hsm.pkcs11.backend import Pkcs11Backend
from openk_hsm.reach import Named, reach_of
from openk_hsm.roots import ROOT
from openk_hsm.seam import *
from openk_hsm.uri import parse_uri
from openk_memory.hardening import *
how, uri, pin_file, state, other = sys.argv[1:6]
backend = Pkcs11Backend(parse_uri(uri))
backend.load()
forbid_new_privileges()
if how == "confined":
    reach = reach_of(parse_uri(uri), PinSource(file=Path(pin_file)), Path(state), Named())
    print(confine(reach))
pin = bytearray(Path(pin_file).read_bytes().strip())
region = bytearray(4096)
backend.open(memoryview(region), ctypes.addressof(ctypes.c_char.from_buffer(region)), lambda: memoryview(pin))
spec = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)
for _ in range(2):
    backend.generate_resident(spec, "openk-key-walls", b"walls")
    backend.load_resident(20, spec, "openk-key-walls", b"walls")
    assert backend.mac(20, Mechanism.HMAC_SHA_256, 0, 16, 64, 64) == 32
    assert backend.destroy_resident("openk-key-walls", b"walls")
made = backend.generate(spec, ROOT.kw.slot, ROOT.mac.slot, b"context")
backend.load_wrapped(21, spec, ROOT.kw.slot, ROOT.mac.slot, b"context", made.blob)
assert backend.mac(21, Mechanism.HMAC_SHA_256, 0, 16, 64, 64) == 32
assert backend.random(0, 32) == 32
backend.health()
print("it serves works")
def attempt(name, act):
    try:
        act()
        print(name, "works")
    except OSError as error:
        print(name, "refused" if error.errno in (1, 13) else error)
attempt("its state", lambda: open(f"{state}/mark", "w").write("x"))
attempt("the daemon's store", lambda: open(f"{other}/store").read())
attempt("a new file elsewhere", lambda: open(f"{other}/new", "w"))
attempt("a list of files elsewhere", lambda: os.listdir(other))
attempt("users", lambda: open("/etc/passwd").read())
attempt("shared memory of others", lambda: open("/dev/shm/openk-test", "w"))
attempt("other processes", lambda: open("/proc/1/status").read())
"""
OTHERS = ("the daemon's store", "a new file elsewhere", "a list of files elsewhere", "users", "shared memory of others",
          "other processes")  # fmt: skip


@contextmanager
def nss(folder: Path) -> Generator[ForeignToken]:
    yield softokn(folder)


@pytest.mark.parametrize("opened", [opencryptoki, nss])
def test_a_worker_serves_within_walls_that_nobody_described(tmp_path: Path, opened: object) -> None:
    assert callable(opened)
    state, other = tmp_path / "state", tmp_path / "other"
    for folder in (state, other):
        folder.mkdir()
    (other / "store").write_text("x")
    with opened(tmp_path / "token") as token:
        token.cli("init", *token.access)
        for how, outcome in (("free", "works"), ("confined", "refused")):
            command = [*token.prefix, sys.executable, "-c", SERVE, how, token.uri, str(token.pin_file), str(state)]
            done = subprocess.run(
                [*command, str(other)], env=dict(token.environment), capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            lines = [line for line in done.stdout.splitlines() if line.endswith(("works", "refused"))]
            found = dict(line.rsplit(" ", 1) for line in lines)
            mine = dict.fromkeys(("it serves", "its state"), "works")
            assert found == {**mine, **dict.fromkeys(OTHERS, outcome)}, done.stdout
    Path("/dev/shm/openk-test").unlink(missing_ok=True)


def uri_of(initialise: str, module: str = SOFTOKN) -> HsmUri:
    return HsmUri("pkcs11", {}, module, "", initialise)


@pytest.mark.parametrize(
    ("initialise", "folder"),
    [
        ("configdir='sql:/var/lib/nss' certPrefix='' keyPrefix='' secmod='secmod.db' flags=", "/var/lib/nss"),
        ("configdir='/var/lib/nss'", "/var/lib/nss"),
        ('flags=readOnly configdir="dbm:/etc/pki/with space"', "/etc/pki/with space"),
        ("configdir=sql:/srv/nss flags=", "/srv/nss"),
        ("configdir='' flags=noCertDB", None),
        ("configdir='sql:relative'", None),
        ("noconfigdir='/etc'", None),
        ("", None),
    ],
)
def test_the_database_of_nss_is_found_in_its_string(initialise: str, folder: str | None) -> None:
    expected = None if folder is None else Places((Path(SOFTOKN).parent,), (Path(folder),))
    assert places_of(uri_of(initialise)) == expected


@given(st.text(max_size=60))
def test_any_string_names_a_folder_or_none(text: str) -> None:
    found = places_of(uri_of(text))
    assert found is None or all(path.is_absolute() for path in found.write)


@pytest.mark.parametrize("name", ["libopencryptoki.so", "libopencryptoki.so.0", "PKCS11_API.so"])
def test_opencryptoki_goes_by_several_names(name: str) -> None:
    found = places_of(parse_uri(f"pkcs11:token=x?module-path=/usr/lib/pkcs11/{name}"))
    assert found is not None
    assert found.write == (Path("/var/lib/opencryptoki"),)
    assert os.path.exists(OPENCRYPTOKI)


def test_of_another_module_nothing_is_known() -> None:
    assert places_of(parse_uri("pkcs11:token=x?module-path=/opt/vendor/libvendor.so")) is None
