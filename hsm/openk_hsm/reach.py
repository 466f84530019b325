"""What a worker must still reach once its module is loaded: its interpreter, its token, its PIN, its state. Landlock
takes the rest away (openk_memory.landlock).

Known for SoftHSM2, opencryptoki, NSS softokn (`pkcs11/places.py`), a YubiHSM, and the software HSM. Any other
vendor's module has paths of its own (a device, a socket of a daemon, a folder): whoever starts the worker names them
with --reach-read and --reach-write, or the module is confined by the unit alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openk_hsm.pin import PinSource
from openk_hsm.pkcs11.places import places_of
from openk_hsm.uri import HsmUri
from openk_memory import landlock
from openk_memory.landlock import Confinement

_LIBRARIES: Final = (
    *("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ssl/openssl.cnf"),
    *("/etc/localtime", "/usr/share/zoneinfo", "/dev/urandom", "/dev/null", "/dev/zero"),
)
_PORTS_SINCE: Final = 4
"""Landlock's ABI that can forbid TCP."""
_RESOLVER: Final = tuple(
    Path("/etc", name) for name in ("hosts", "resolv.conf", "nsswitch.conf", "gai.conf", "host.conf", "services")
)


@dataclass(frozen=True, slots=True)
class Named:
    """Paths that an operator named for a module whose needs openk does not know. `connect`: TCP ports."""

    read: Sequence[Path] = ()
    write: Sequence[Path] = ()
    connect: Sequence[int] = ()


_USB: Final = Named(read=[Path("/sys/bus/usb"), Path("/sys/devices"), Path("/run/udev")], write=[Path("/dev/bus/usb")])


def reach_of(uri: HsmUri, pin: PinSource, state: Path, named: Named) -> Confinement | None:
    """None where nobody knows what the module needs. Paths that are not there are left out; TCP is forbidden where
    only files were named or known, and left alone for a module of which openk knows nothing but what was named."""
    known = _known(uri)
    if known is None and not (named.read or named.write):
        return None
    theirs = known or Named()
    read = [*_interpreter(), *theirs.read, *named.read, *_pin_paths(pin)]
    write = [state, *theirs.write, *named.write]
    ports = known is not None and landlock.abi() >= _PORTS_SINCE
    return Confinement(
        read=_present(read),
        write=_present(write),
        bind_ports=() if ports else None,
        connect_ports=theirs.connect if ports else None,
        scope=not os.environ.get("NOTIFY_SOCKET", "").startswith("@"),
    )


def _known(uri: HsmUri) -> Named | None:
    if uri.scheme == "software":
        state = uri.path.get("state")
        return Named(write=[Path(state).parent] if state else [])
    if uri.scheme == "yubihsm":
        return _USB if "usb" in uri.path else Named(read=_RESOLVER, connect=[int(uri.path["port"])])
    places = places_of(uri) if uri.scheme == "pkcs11" else None
    return None if places is None else Named(read=places.read, write=places.write)


def _interpreter() -> list[Path]:
    """Late imports of Python, libraries, and what the process may know of itself: `/proc/self` is a link, and a rule
    is about the folder behind it."""
    return [
        Path(path) for path in (sys.prefix, sys.base_prefix, *sys.path, *_LIBRARIES, f"/proc/{os.getpid()}") if path
    ]


def _pin_paths(pin: PinSource) -> list[Path]:
    """A PIN is read again when an operator unseals."""
    if pin.credential:
        folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
        return [Path(folder)] if folder else []
    return [] if pin.file is None else [pin.file]


def _present(paths: Sequence[Path]) -> list[Path]:
    return [path for path in dict.fromkeys(paths) if path.exists()]
