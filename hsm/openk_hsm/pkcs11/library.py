"""Loading a PKCS#11 module so that a bad one is named, not suffered (PKCS#11 v3.1, sections 5.2 to 5.4).

A module is vendor code: it may crash or hang as soon as it is loaded.  So it is loaded and initialised in a child
process first, with a deadline; what happened to the child is what the operator reads.

python-pkcs11 is not used: it initialises without CKF_OS_LOCKING_OK (opencryptoki wants it), cannot pass the
parameter string that NSS softokn needs, and initialises a library that the process has initialised already.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
import struct
import warnings
from pathlib import Path
from typing import Final

from openk_hsm.errors import HsmError
from openk_hsm.pkcs11 import codes
from openk_hsm.pkcs11.module import Module, Pointer, Ulong

INITIALISE_WITHIN: Final = 10
"""Seconds that a module gets to load and initialise; a slow network HSM needs two or three."""
CKF_OS_LOCKING_OK: Final = 0x2
_ELF: Final = struct.Struct("16sHH")
_MACHINES: Final = {3: "x86", 8: "MIPS", 20: "PowerPC", 21: "PowerPC 64", 22: "S390", 40: "ARM", 62: "x86-64",
                    183: "ARM 64", 243: "RISC-V", 258: "LoongArch"}  # fmt: skip
_REFUSED: Final = 3
_loaded: Final[dict[str, Module]] = {}


class InitializeArgs(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS as NSS has it: where the standard has pReserved = NULL, NSS reads a parameter string."""

    _fields_ = (
        ("create", Pointer),
        ("destroy", Pointer),
        ("lock", Pointer),
        ("unlock", Pointer),
        ("flags", Ulong),
        ("parameters", ctypes.c_char_p),
        ("reserved", Pointer),
    )


def load_module(path: str, parameters: str = "") -> Module:
    """The module, loaded and initialised once in this process. `parameters`: for C_Initialize, NSS softokn only.

    Raises HsmError that says what to check: no such file, not a library, for another machine, not PKCS#11, crashes,
    hangs, refuses to initialise.
    """
    known = _loaded.get(path)
    if known is not None:
        return known
    _check_file(path)
    _try_in_child(path, parameters)
    module = Module(path)
    initialise(module, parameters)
    _loaded[path] = module
    return module


def loaded(path: str) -> Module:
    """A module that `load_module` loaded."""
    return _loaded[path]


def initialise(module: Module, parameters: str) -> None:
    """C_Initialize, allowing the module to use the operating system's locks. Raises HsmError."""
    text = parameters.encode() or None
    arguments = InitializeArgs(None, None, None, None, CKF_OS_LOCKING_OK, text, None)
    code = module.initialize(ctypes.addressof(arguments))
    if code == codes.CKR_CANT_LOCK and not parameters:
        code = module.initialize(None)
    if code not in (0, codes.CKR_CRYPTOKI_ALREADY_INITIALIZED):
        raise HsmError(_does_not_initialise(module.path, codes.name_of(code)), device=codes.name_of(code))


def _does_not_initialise(path: str, name: str) -> str:
    return (
        f"the module {path} does not initialise: {name}. Does this process have what the vendor asks for? SoftHSM2: "
        "SOFTHSM2_CONF names a readable file whose directories.tokendir exists; opencryptoki: pkcsslotd runs; "
        "tpm2-pkcs11: TPM2_PKCS11_STORE and TPM2_PKCS11_TCTI; NSS softokn: x-initialise=configdir=... in the URI"
    )


def _check_file(path: str) -> None:
    """What dlopen would say badly, or (another machine's library) as "No such file or directory"."""
    try:
        with Path(path).open("rb") as file:
            header = file.read(_ELF.size)
        with Path("/proc/self/exe").open("rb") as file:
            ours = file.read(_ELF.size)
    except OSError as error:
        raise HsmError(f"cannot load the module {path}: {error.strerror}. Check module-path in the URI.") from None
    if not header.startswith(b"\x7fELF") or len(header) < _ELF.size:
        raise HsmError(
            f"{path} is not a PKCS#11 module: it is no shared library (no ELF header). Check module-path: it names the "
            "library itself (a .so file), not its configuration"
        )
    theirs, mine = _ELF.unpack(header), _ELF.unpack(ours)
    if (theirs[0][4:6], theirs[2]) != (mine[0][4:6], mine[2]):
        raise HsmError(
            f"the module {path} is for {_machine(theirs[0], theirs[2])}, and this machine is "
            f"{_machine(mine[0], mine[2])}: install the vendor's package for this architecture"
        )


def _machine(ident: bytes, machine: int) -> str:
    bits = {1: "32-bit", 2: "64-bit"}.get(ident[4], "unknown")
    return f"{bits} {_MACHINES.get(machine, f'machine {machine}')}"


def _try_in_child(path: str, parameters: str) -> None:
    """Load and initialise in a child that may crash or hang in our stead. Raises HsmError."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads; the child only calls the module
        child = os.fork()
    if child == 0:
        _be_the_child(path, parameters, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read(4096).decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGALRM:
            raise HsmError(
                f"the module {path} hangs: C_Initialize did not return within {INITIALISE_WITHIN} seconds. Is the "
                "device or its network service reachable? Try the vendor's own tool",
                device="hangs",
            )
        name = signal.Signals(number).name
        raise HsmError(
            f"the module {path} crashes ({name}) when it is loaded or initialised. Is it the vendor's library for this "
            "release of the system, with its configuration in place? Try the vendor's own tool",
            device=name,
        )
    if os.WEXITSTATUS(status) == _REFUSED:
        device, _, text = said.partition("\n")
        raise HsmError(text, device=device)
    if os.WEXITSTATUS(status):
        raise HsmError(f"the module {path} ended the process (exit status {os.WEXITSTATUS(status)}) when it was loaded")


def _be_the_child(path: str, parameters: str, writing: int) -> None:
    """Never returns. C_Finalize is left out: a crash there would be no reason to refuse the module."""
    status = 0
    faulthandler.disable()  # what a vendor's code does to the child is told in one sentence, not in tracebacks
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM,))
        signal.alarm(INITIALISE_WITHIN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        initialise(Module(path), parameters)
    except HsmError as error:
        os.write(writing, f"{error.device}\n{error}".encode())
        status = _REFUSED
    finally:
        os._exit(status)
