"""Two daemons on one token are noticed, where the kernel lets them see each other.

Each counts the uses of the root keys for itself and makes objects that the other does not know, so they should not
share a token. A daemon claims its tokens by abstract Unix sockets (unix(7)), which the kernel takes back when it dies:

    \\0openk-token-<first 32 hexadecimal digits of the token's identity>

Abstract names belong to a network namespace: daemons in units of their own with PrivateNetwork=yes do not see each
other, nor do those on other hosts. (A YubiHSM's log tells of every other user: docs/hsm.md.)
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Claims:
    """Held until `close`. `report` hears of each token that another daemon has, once."""

    def __init__(self, report: Callable[[str, int], None]) -> None:
        """`report`: the HSM's name and the other's process id, 0 where it does not say."""
        self._report = report
        self._held: dict[bytes, socket.socket] = {}
        self._told: set[bytes] = set()
        self.shared: dict[str, int] = {}
        """HSMs that another daemon uses too: name to its process id."""

    def claim(self, name: str, identity: bytes) -> None:
        """Claim the token of that identity (`TokenInfo.identity`) for the HSM `name`. Again: nothing, unless the other
        one has gone meanwhile."""
        if identity in self._held:
            return
        address = f"\0openk-token-{identity.hex()[:32]}"
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            claim.bind(address)
            claim.listen(1)
        except OSError as error:
            claim.close()
            if error.errno == errno.EADDRINUSE:
                self._tell(name, identity, address)
            return
        self._held[identity] = claim
        self.shared.pop(name, None)

    def _tell(self, name: str, identity: bytes, address: str) -> None:
        self.shared[name] = other = _owner_of(address)
        if identity not in self._told:
            self._told.add(identity)
            self._report(name, other)

    def close(self) -> None:
        while self._held:
            self._held.popitem()[1].close()


def _owner_of(address: str) -> int:
    kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as probe:
        probe.connect(address)
        pid, _, _ = _CREDENTIALS.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        return int(pid)
    return 0
