"""Cached keys, opened: unwrapped by the HSM into locked memory, for a bounded time and count of uses."""

from __future__ import annotations

from collections.abc import Callable

from openk_daemon.hierarchy.flights import Flights
from openk_daemon.hierarchy.hierarchy import Hierarchy
from openk_daemon.hierarchy.records import KEY_VERSION
from openk_daemon.hierarchy.refusals import damaged
from openk_daemon.hierarchy.sealing import material_context
from openk_daemon.hierarchy.shelf import Shelf
from openk_daemon.keys.state import KeyState, KeyVersion, Opened
from openk_hsm.errors import InvalidCiphertext
from openk_memory.pool import Pool


class Openings:
    """`seconds` and `uses` bound how long an opened key stays; `room` how many are open at once. `monotonic` gives
    seconds. Whoever runs the daemon calls `sweep` about once a second, so that idle keys are wiped in time too."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        pool: Pool,
        monotonic: Callable[[], float],
        *,
        seconds: float,
        uses: int,
        room: int,
    ) -> None:
        self._hierarchy = hierarchy
        self._pool = pool
        self._monotonic = monotonic
        self.seconds = seconds
        self.uses = uses
        self._open: Shelf[KeyVersion, KeyVersion] = Shelf(room, _wipe)
        self._opening: Flights[KeyVersion, None] = Flights()

    def ready(self, version: KeyVersion, uses: int) -> memoryview | None:
        """The key bytes, when it is open and that many uses are left; they are counted. Use the view before the
        next await and do not keep it."""
        opened = version.opened
        if opened is None or opened.uses < uses or opened.expires <= self._monotonic():
            return None
        opened.uses -= uses
        self._hierarchy.touched = True
        return opened.lease.view

    async def material(self, state: KeyState, version: KeyVersion, uses: int = 1) -> memoryview:
        """As `ready`, opening it first where needed. Raises Refusal(store.damaged), HsmError, Exhausted."""
        view = self.ready(version, uses)
        while view is None:
            await self._opening.join(version, lambda: self._open_one(state, version, uses))
            view = self.ready(version, uses)
        return view

    def close(self, version: KeyVersion) -> None:
        """Wipe it now. Idempotent."""
        self._open.drop(version)

    def sweep(self) -> int:
        """Wipe what has expired; how many that were."""
        now = self._monotonic()
        expired = [version for version in self._open.values() if version.opened and version.opened.expires <= now]
        for version in expired:
            self._open.drop(version)
        return len(expired)

    def clear(self) -> None:
        self._open.clear()

    def __len__(self) -> int:
        return len(self._open)

    async def _open_one(self, state: KeyState, version: KeyVersion, uses: int) -> None:
        self._open.drop(version)
        envelope = version.material
        overhead = state.vault.sealer.scheme.overhead
        if envelope is None or len(envelope) <= overhead:
            raise damaged(KEY_VERSION)
        size = len(envelope) - overhead
        context = material_context(state.algorithm.value, state.vault.id, state.id, version.number, state.purpose.value)
        lease = self._pool.lease(size)
        try:
            pending = self._hierarchy.sealing.open_material(state.vault.sealer, context, envelope, lease.view)
            if pending is None or await pending != size:
                raise damaged(KEY_VERSION)
        except InvalidCiphertext as error:
            lease.release()
            raise damaged(KEY_VERSION) from error
        except BaseException:
            lease.release()
            raise
        version.opened = Opened(lease, self._monotonic() + self.seconds, max(self.uses, uses))
        self._open.put(version, version)


def _wipe(version: KeyVersion) -> None:
    opened = version.opened
    if opened is not None:
        version.opened = None
        opened.lease.release()
