"""Derivation: every HMAC block computed in the HSM (or with a cached key), straight into locked memory.

SP 800-108r1 section 4.1, counter mode, PRF = HMAC with the key's hash:
    K(i) = HMAC(key, [i]32 || label || 0x00 || context || [L]32)      L = bits wanted; i from 1; big endian
RFC 5869 section 2.3, HKDF-Expand, the key as PRK:
    T(i) = HMAC(key, T(i-1) || info || [i]8)                          T(0) empty
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openk_daemon.call import Sealed
from openk_daemon.hierarchy.refusals import refuse
from openk_daemon.keys import cached
from openk_daemon.keys.keyring import Keyring
from openk_daemon.keys.state import KeyState, KeyVersion
from openk_daemon.refusal import Refusal
from openk_hsm.errors import HsmError
from openk_hsm.pending import Pending, resolved
from openk_hsm.seam import Buffer, OpCode, Operation
from openk_memory.errors import Exhausted
from openk_memory.lease import Lease
from openk_memory.pool import Pool

HKDF_BLOCKS: Final = 255


@dataclass(slots=True, eq=False)
class _Job:
    """One item: `out` collects the blocks; `work` (HKDF) is [T(i-1) | info | i]. An error ends it, not the others."""

    fixed: bytes
    out: Lease
    work: Lease | None = None
    error: Refusal | None = None

    def release(self) -> None:
        if self.work is not None:
            self.work.release()
            self.work = None


class Derivations:
    def __init__(self, keyring: Keyring, pool: Pool) -> None:
        self._openings = keyring.openings
        self._pool = pool
        self._submit = keyring.hierarchy.lane.submit

    async def counter(
        self,
        state: KeyState,
        version: KeyVersion,
        inputs: Sequence[tuple[bytes, bytes]],
        length: int,
        client: int,
        owner: int,
    ) -> list[Sealed | Refusal]:
        """SP 800-108 for each (label, context). No block needs another: all of all items go to the HSM at once."""
        size = state.hmac[1]
        blocks = -(-length // size)
        bits = (8 * length).to_bytes(4, "big")
        jobs: list[_Job | Refusal] = []
        for label, context in inputs:
            if b"\0" in label:
                jobs.append(Refusal("key.input_invalid", "a label has no zero bytes: one ends it"))
            else:
                jobs.append(self._job(b"".join((label, b"\0", context, bits)), blocks * size, owner))
        live = [job for job in jobs if isinstance(job, _Job)]
        try:
            waiting: list[tuple[_Job, Pending[bytes | int]]] = []
            for job in live:
                for i in range(blocks):
                    into = job.out.view[i * size : (i + 1) * size]
                    data = (i + 1).to_bytes(4, "big") + job.fixed
                    waiting.append((job, await self._block(state, version, data, into, client)))
            await _settle(waiting, size)
        except BaseException:
            _give_back(live)
            raise
        return [_result(job, length) for job in jobs]

    async def expand(
        self,
        state: KeyState,
        version: KeyVersion,
        infos: Sequence[bytes],
        length: int,
        client: int,
        owner: int,
    ) -> list[Sealed | Refusal]:
        """HKDF-Expand for each info: block after block, all items side by side. Raises Refusal(key.input_invalid)."""
        size = state.hmac[1]
        blocks = -(-length // size)
        if blocks > HKDF_BLOCKS:
            raise Refusal("key.input_invalid", f"HKDF-Expand gives {HKDF_BLOCKS * size} bytes at most")
        jobs = [self._job(info, blocks * size, owner, size) for info in infos]
        live = [job for job in jobs if isinstance(job, _Job)]
        try:
            for i in range(blocks):
                waiting: list[tuple[_Job, Pending[bytes | int]]] = []
                for job in live:
                    if job.error is None:
                        data, into = _expand_input(job, i, size)
                        waiting.append((job, await self._block(state, version, data, into, client)))
                await _settle(waiting, size)
        except BaseException:
            _give_back(live)
            raise
        for job in live:
            job.release()
        return [_result(job, length) for job in jobs]

    def _job(self, fixed: bytes, room: int, owner: int, chain: int = 0) -> _Job | Refusal:
        try:
            out = self._pool.lease(room, owner)
        except Exhausted as error:
            return refuse(error)
        if not chain:
            return _Job(fixed, out)
        try:
            work = self._pool.lease(chain + len(fixed) + 1, owner)
        except Exhausted as error:
            out.release()
            return refuse(error)
        work.view[chain : chain + len(fixed)] = fixed
        return _Job(fixed, out, work)

    async def _block(
        self, state: KeyState, version: KeyVersion, data: Buffer, into: memoryview, client: int
    ) -> Pending[bytes | int]:
        """A cached key may have to be opened first, and may raise then; the HSM's answers settle later."""
        mechanism, size = state.hmac
        if version.handle is not None:
            return self._submit(Operation(OpCode.MAC, size, version.handle, mechanism, data, into=into, client=client))
        material = await self._openings.material(state, version)
        cached.mac_into(state.algorithm, material, data, into)
        return resolved(size)


def _expand_input(job: _Job, i: int, size: int) -> tuple[memoryview, memoryview]:
    """Block i's (from 0) HMAC input and where its output goes."""
    if job.work is None:
        raise AssertionError("a job of HKDF has a place to work")
    work = job.work.view
    work[-1] = i + 1
    into = job.out.view[i * size : (i + 1) * size]
    if i == 0:
        return work[size:], into
    work[:size] = job.out.view[(i - 1) * size : i * size]
    return work, into


async def _settle(waiting: Sequence[tuple[_Job, Pending[bytes | int]]], size: int) -> None:
    """Wait for all, errors included: until then the HSM may write into the leases."""
    for job, pending in waiting:
        try:
            if await pending != size:
                job.error = Refusal("hsm.refused")
        except HsmError as error:
            job.error = refuse(error)


def _give_back(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        job.release()
        job.out.release()


def _result(job: _Job | Refusal, length: int) -> Sealed | Refusal:
    if isinstance(job, Refusal):
        return job
    if job.error is not None:
        job.out.release()
        return job.error
    return Sealed(job.out, length)
