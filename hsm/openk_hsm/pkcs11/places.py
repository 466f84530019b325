"""Which files a PKCS#11 module opens once it is loaded, where that is known: what a confined worker must still reach.

By strace of a worker from after C_Initialize on: login, making and destroying token objects, every operation.

    SoftHSM2        its configuration, its folder of tokens
    opencryptoki    its tokens (a folder that is compiled in); group names, each time it writes an object. The slot
                    daemon's socket, its lock and its shared memory were opened by C_Initialize, and stay open
    NSS softokn     the database folder, which the string for C_Initialize names (`configdir=`)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openk_hsm.pkcs11 import softhsm
from openk_hsm.uri import HsmUri

_OPENCRYPTOKI_TOKENS: Final = Path("/var/lib/opencryptoki")
_GROUPS: Final = (Path("/etc/group"), Path("/etc/nsswitch.conf"))
_CONFIGDIR: Final = re.compile(r"""(?:^|\s)configdir=(?:'([^']*)'|"([^"]*)"|(\S*))""")
_STORES: Final = ("sql:", "dbm:", "rdb:", "extern:")
"""How NSS says what kind of database a folder has."""


@dataclass(frozen=True, slots=True)
class Places:
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()


def places_of(uri: HsmUri) -> Places | None:
    """Of the module that the URI names, its own folder among them; None where nobody knows."""
    name, _, _ = Path(uri.module).name.partition(".so")
    find = _KNOWN.get(name)
    found = None if find is None else find(uri)
    return None if found is None else Places((Path(uri.module).parent, *found.read), found.write)


def _softhsm(_: HsmUri) -> Places | None:
    configuration = softhsm.configuration()
    folder = softhsm.token_folder(configuration)
    return None if folder is None else Places((configuration,), (folder,))


def _opencryptoki(_: HsmUri) -> Places:
    return Places(_GROUPS, (_OPENCRYPTOKI_TOKENS,))


def _softokn(uri: HsmUri) -> Places | None:
    """None without a folder of its own: then it keeps nothing, or asks for it elsewhere."""
    match = _CONFIGDIR.search(uri.initialise)
    named = next((part for part in match.groups() if part), "") if match else ""
    for store in _STORES:
        named = named.removeprefix(store)
    return Places((), (Path(named),)) if named.startswith("/") else None


_KNOWN: Final[Mapping[str, Callable[[HsmUri], Places | None]]] = {
    softhsm.MODULE.removesuffix(".so"): _softhsm,
    "libopencryptoki": _opencryptoki,
    "PKCS11_API": _opencryptoki,  # its other name
    "libsoftokn3": _softokn,
}
