"""A lane without a worker: the back end runs in the daemon's own process. For tests and nothing else.

Every answer is settled before `submit` returns, so a handler under test runs to its end in one step.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from typing import TypeVar

from openk_hsm.errors import HsmError, InvalidInput
from openk_hsm.lane_health import LaneHealth, LaneState
from openk_hsm.pending import Pending
from openk_hsm.seam import (
    Backend,
    Generated,
    KeyHandle,
    KeySpec,
    Notice,
    ObjectInfo,
    OpCode,
    Operation,
    Resident,
    TokenInfo,
    Wrapper,
)
from openk_hsm.specs import room_of

T = TypeVar("T")


def _no_pin() -> memoryview:
    return memoryview(b"")


class InlineLane:
    """`openk_hsm.seam.Lane` over a back end in this process. `close` it when done."""

    def __init__(
        self,
        backend: Backend,
        name: str = "test",
        *,
        handoff_bytes: int = 4 << 20,
        pin: Callable[[], memoryview] = _no_pin,
    ) -> None:
        """Opens the back end. Raises HsmError as `Backend.open` does."""
        self.name = name
        self._backend = backend
        self._region = mmap.mmap(-1, handoff_bytes)
        self._view = memoryview(self._region)
        self._loaded: set[int] = set()
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._region))
        self._info = backend.open(self._view, address, pin)

    def submit(self, operation: Operation) -> Pending[bytes | int]:
        try:
            operation.pending.resolve(self._run(operation))
        except HsmError as error:
            operation.pending.fail(error)
        return operation.pending

    def _run(self, operation: Operation) -> bytes | int:
        slot = 0
        if operation.key is not None:
            self._load(operation.key)
            slot = operation.key.slot
        spans: list[tuple[int, int]] = []
        at = 0
        room = room_of(operation)
        if sum(map(len, (operation.param, operation.aad, operation.data))) + room > len(self._view):
            raise InvalidInput("the operation is larger than the hand-off region")
        for part in (operation.param, operation.aad, operation.data):
            self._view[at : at + len(part)] = part
            spans.append((at, len(part)))
            at += len(part)
        try:
            length = self._call(operation, slot, spans, at)
            if length > operation.room:
                raise InvalidInput("the answer is longer than the room for it")
            if operation.into is None:
                return bytes(self._view[at : at + length])
            if length > len(operation.into):
                raise InvalidInput("the answer does not fit")
            operation.into[:length] = self._view[at : at + length]
            return length
        finally:
            end = at + room
            self._view[:end] = bytes(end)

    def _call(self, operation: Operation, slot: int, spans: list[tuple[int, int]], out: int) -> int:
        backend, mechanism, room = self._backend, operation.mechanism, room_of(operation)
        param, aad, data = spans
        match operation.code:
            case OpCode.RANDOM:
                return backend.random(out, room)
            case OpCode.MAC:
                return backend.mac(slot, mechanism, *data, out, room)
            case OpCode.SIGN:
                return backend.sign(slot, mechanism, *data, out, room)
            case OpCode.ENCRYPT:
                return backend.encrypt(slot, mechanism, param, aad, data, out, room)
            case OpCode.DECRYPT:
                return backend.decrypt(slot, mechanism, param, aad, data, out, room)
            case OpCode.AGREE:
                return backend.agree(slot, *data, out, room)

    def _load(self, key: KeyHandle) -> None:
        if key.slot in self._loaded:
            return
        source = key.source
        if isinstance(source, Resident):
            self._backend.load_resident(key.slot, key.spec, source.label, source.id)
        else:
            kw, mac = source.wrapper.kw, source.wrapper.mac
            self._load(kw)
            self._load(mac)
            self._backend.load_wrapped(key.slot, key.spec, kw.slot, mac.slot, source.context, source.blob)
        self._loaded.add(key.slot)

    def generate(self, spec: KeySpec, wrapper: Wrapper, context: bytes) -> Pending[Generated]:
        def call() -> Generated:
            self._load(wrapper.kw)
            self._load(wrapper.mac)
            return self._backend.generate(spec, wrapper.kw.slot, wrapper.mac.slot, context)

        return _settle(call)

    def generate_resident(self, spec: KeySpec, label: str, id_: bytes) -> Pending[Generated]:
        return _settle(lambda: self._backend.generate_resident(spec, label, id_))

    def destroy_resident(self, label: str, id_: bytes) -> Pending[bool]:
        return _settle(lambda: self._backend.destroy_resident(label, id_))

    def objects(self) -> Pending[Sequence[ObjectInfo]]:
        return _settle(self._backend.objects)

    def attest(self, label: str, id_: bytes) -> Pending[Sequence[bytes]]:
        return _settle(lambda: self._backend.attest(label, id_))

    def notices(self, after: int) -> Pending[Sequence[Notice]]:
        return _settle(lambda: self._backend.notices(after))

    def info(self) -> Pending[TokenInfo]:
        return _settle(lambda: self._info)

    def unload(self, key: KeyHandle) -> None:
        if key.slot in self._loaded:
            self._loaded.discard(key.slot)
            self._backend.unload(key.slot)

    def health(self) -> LaneHealth:
        return LaneHealth(self.name, LaneState.UP, 1, 0, 0, 0, 0)

    def close(self) -> None:
        self._backend.close()
        self._view[:] = bytes(len(self._view))


def _settle(call: Callable[[], T]) -> Pending[T]:
    pending: Pending[T] = Pending()
    try:
        pending.resolve(call())
    except HsmError as error:
        pending.fail(error)
    return pending
