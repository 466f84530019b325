"""A module that is none, is for another machine, crashes, hangs or refuses: a sentence, and the process lives on.

`load_module` tries each in a child, so these tests load nothing into their own process.
"""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from openk_hsm.errors import HsmError
from openk_hsm.pkcs11 import library
from openk_hsm.pkcs11.library import load_module
from tests.support.foreign_tokens import refusal_of
from tests.support.shim import Shim
from tests.support.tokens import MODULE

X86, ARM64 = 62, 183


def elf(machine: int, bits: int) -> bytes:
    """The head of a shared library: ident, type ET_DYN, machine (ELF, System V ABI, chapter 4)."""
    return struct.pack("<4sBBB9sHH", b"\x7fELF", bits // 32, 1, 1, bytes(9), 3, machine) + bytes(100)


def own_machine() -> int:
    with Path("/proc/self/exe").open("rb") as file:
        return int(struct.unpack_from("<H", file.read(20), 18)[0])


def refusal(path: Path | str) -> HsmError:
    with pytest.raises(HsmError) as refused:
        load_module(str(path))
    assert str(path) in str(refused.value)
    return refused.value


def test_a_text_file_is_no_library(tmp_path: Path) -> None:
    path = tmp_path / "softhsm2.conf"
    path.write_text("directories.tokendir = /var/lib/softhsm/tokens\n")
    assert "not its configuration" in str(refusal(path))
    path.write_bytes(b"")
    assert "no shared library" in str(refusal(path))


def test_a_path_that_leads_nowhere_or_to_a_folder(tmp_path: Path) -> None:
    assert "No such file" in str(refusal(tmp_path / "none.so"))
    assert "directory" in str(refusal(tmp_path))


def test_a_library_for_another_machine_names_both(tmp_path: Path) -> None:
    other = ARM64 if own_machine() == X86 else X86
    path = tmp_path / "vendor.so"
    path.write_bytes(elf(other, 64))
    said = str(refusal(path))
    assert "64-bit ARM 64" in said or "64-bit x86-64" in said
    assert "for this architecture" in said
    path.write_bytes(elf(own_machine(), 32))
    assert "32-bit" in str(refusal(path))


def test_a_library_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.so"
    path.write_bytes(elf(own_machine(), 64))
    assert "cannot load the module" in str(refusal(path))


def test_a_library_without_the_function_list_is_not_pkcs11() -> None:
    libc = next(Path("/usr/lib").glob("*-linux-gnu/libc.so.6"))
    assert "no C_GetFunctionList" in str(refusal(libc))


@pytest.mark.parametrize(
    ("word", "says", "device"),
    [
        ("segfault", "crashes (SIGSEGV)", "SIGSEGV"),
        ("abort", "crashes (SIGABRT)", "SIGABRT"),
        ("exit", "exit status 7", ""),
        ("refuses", "does not initialise: CKR_DEVICE_ERROR", "CKR_DEVICE_ERROR"),
    ],
)
def test_a_module_that_does_not_start_is_suffered_by_a_child(
    shim: Shim, monkeypatch: pytest.MonkeyPatch, word: str, says: str, device: str
) -> None:
    for name, value in shim.spoilt(word).environment.items():
        monkeypatch.setenv(name, value)
    error = refusal(shim.module)
    assert says in str(error)
    assert error.device == device


def test_a_module_that_hangs_is_given_up(shim: Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in shim.spoilt("hang").environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(library, "INITIALISE_WITHIN", 1)
    begun = time.monotonic()
    assert "hangs" in str(refusal(shim.module))
    assert 0.9 < time.monotonic() - begun < 5


async def test_the_daemon_hears_why_a_worker_cannot_load_its_module(shim: Shim) -> None:
    assert "crashes (SIGSEGV)" in str(await refusal_of(shim.spoilt("segfault")))


def test_a_module_that_cannot_lock_still_serves_one_thread(shim: Shim) -> None:
    token = shim.spoilt("cant-lock")
    assert "data: AES-256-GCM" in token.cli("probe", *token.access)


def test_a_module_is_loaded_once(shim: Shim) -> None:
    """The same module asked for again is the same: it was initialised for the whole process."""
    token = shim.spoilt()
    assert MODULE in token.environment["SHIM_MODULE"]
    assert token.cli("tokens", "--module", str(shim.module)).count("openk-dev") == 1
