"""Waiting for a store's answers in tests."""

from __future__ import annotations

from typing import TypeVar

from openk_daemon.store.seam import Committed, Store, Unit, Write
from openk_hsm.pending import Pending, settle

T = TypeVar("T")


async def answer(pending: Pending[T]) -> T:
    async def wait() -> T:
        return await pending

    return await settle(wait())


async def commit(store: Store, *writes: Write, entry: bytes | None = None) -> Committed:
    return await answer(store.commit(Unit(writes, entry)))
