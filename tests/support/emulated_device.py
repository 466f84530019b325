"""An emulated YubiHSM whose command handlers are called directly: no frames, no session keys, no connector."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Final

import pytest

from yubihsm_emulator.codes import ALL_CAPABILITIES, ALL_DOMAINS, Algorithm, Command, ObjectType
from yubihsm_emulator.commands import TABLE
from yubihsm_emulator.device import Device
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import keypairs
from yubihsm_emulator.objects import StoredObject
from yubihsm_emulator.request import Holder, Request

ANYBODY: Final = Holder(1, ALL_DOMAINS, ALL_CAPABILITIES, ALL_CAPABILITIES)
SERIAL: Final = 7_550_001

key_of = cache(keypairs.generate)
"""One key an algorithm for a whole run: RSA keys take long to make."""


class Bench:
    """`holder` is on whose behalf commands run: by default may everything."""

    def __init__(self) -> None:
        self.device = Device(SERIAL)
        self.holder = ANYBODY

    def limited(self, *, capabilities: int = ALL_CAPABILITIES, domains: int = ALL_DOMAINS) -> "Bench":
        """The same device for somebody who may less."""
        other = Bench()
        other.device = self.device
        other.holder = replace(ANYBODY, capabilities=capabilities, domains=domains)
        return other

    def call(self, command: Command, data: bytes = b"") -> bytes:
        spec = TABLE[command]
        if spec.needs & ~self.holder.capabilities:
            raise DeviceError(ErrorCode.INSUFFICIENT_PERMISSIONS)
        return spec.handler(Request(data, self.holder, self.device))

    def fails(self, code: ErrorCode, command: Command, data: bytes = b"") -> None:
        """The command fails with this code and changes nothing."""
        before = list(self.device.store)
        refused(code, lambda: self.call(command, data))
        assert list(self.device.store) == before

    def find(self, kind: ObjectType, object_id: int) -> StoredObject:
        return self.device.store.find(kind, object_id, ALL_DOMAINS)

    def delete(self, kind: ObjectType, object_id: int) -> None:
        self.device.store.delete(self.find(kind, object_id))

    def keep(
        self,
        kind: ObjectType,
        object_id: int,
        algorithm: Algorithm,
        material: bytes,
        *,
        capabilities: int = ALL_CAPABILITIES,
        delegated: int = 0,
        domains: int = ALL_DOMAINS,
    ) -> StoredObject:
        """An object put straight into the store."""
        label = b"kept".ljust(40, b"\0")
        one = StoredObject(kind, object_id, label, domains, capabilities, delegated, algorithm, 0, 2, material)
        return self.device.store.add(one)

    def keypair(self, object_id: int, algorithm: Algorithm, capabilities: int = ALL_CAPABILITIES) -> StoredObject:
        return self.keep(ObjectType.ASYMMETRIC_KEY, object_id, algorithm, key_of(algorithm), capabilities=capabilities)


def header(
    object_id: int,
    algorithm: int,
    *,
    capabilities: int = ALL_CAPABILITIES,
    delegated: int | None = None,
    domains: int = ALL_DOMAINS,
    label: bytes = b"made",
) -> bytes:
    """The first bytes of a command that creates an object, as drawn at `yubihsm_emulator.objects.Header`."""
    fields = ((object_id, 2), (domains, 2), (capabilities, 8), (algorithm, 1))
    packed = [value.to_bytes(size, "big") for value, size in fields]
    packed.insert(1, label.ljust(40, b"\0"))
    return b"".join(packed) + (b"" if delegated is None else delegated.to_bytes(8, "big"))


def u16(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def refused(code: ErrorCode, act: Callable[[], object]) -> None:
    """`act` raises `DeviceError` with this code."""
    with pytest.raises(DeviceError) as caught:
        act()
    assert caught.value.code is code
