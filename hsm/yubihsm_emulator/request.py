import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from yubihsm_emulator.codes import Algorithm, Capability, ObjectType
from yubihsm_emulator.device import Device
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.objects import Header, StoredObject
from yubihsm_emulator.reader import Reader


@dataclass(frozen=True, slots=True)
class Holder:
    """On whose behalf a command runs: what the authentication key was when the session began."""

    key_id: int
    domains: int
    capabilities: int
    delegated: int


@dataclass(frozen=True, slots=True)
class Request:
    """One command for a handler, with the rules of who may do what.

    A handler reads `data`, asks these rules, changes `device`, and returns the reply's data; whatever it raises
    (`DeviceError`) it raises before changing anything.
    """

    data: bytes
    session: Holder
    device: Device

    def reader(self) -> Reader:
        return Reader(self.data)

    def need(self, capability: Capability) -> None:
        """The session must have it: INSUFFICIENT PERMISSIONS. (What every use of a command needs stands in its row of
        the table and has been checked already.)"""
        if not self.session.capabilities & capability:
            raise DeviceError(ErrorCode.INSUFFICIENT_PERMISSIONS)

    def find(self, kind: ObjectType, object_id: int) -> StoredObject:
        """The object, if the session's domains see it: else OBJECT NOT FOUND."""
        return self.device.store.find(kind, object_id, self.session.domains)

    def permit(
        self, one: StoredObject, capability: Capability, otherwise: ErrorCode = ErrorCode.INSUFFICIENT_PERMISSIONS
    ) -> None:
        """The object must have it, and its algorithm must not be switched off."""
        if not one.capabilities & capability:
            raise DeviceError(otherwise)
        self.device.enabled(one.algorithm)

    def use(
        self,
        kind: ObjectType,
        object_id: int,
        capability: Capability,
        otherwise: ErrorCode = ErrorCode.INSUFFICIENT_PERMISSIONS,
    ) -> StoredObject:
        """`find` and `permit` in one, for commands that check nothing in between."""
        one = self.find(kind, object_id)
        self.permit(one, capability, otherwise)
        return one

    def enabled(self, algorithm: Algorithm) -> None:
        """ALGORITHM DISABLED where an option has switched it off."""
        self.device.enabled(algorithm)

    def create(self, kind: ObjectType, header: Header, make: Callable[[], bytes], origin: int) -> bytes:
        """Keeps a new object and answers its id (u16), as every put and generate does.

        Checks what a session may give away (no more than its delegated capabilities and its domains), then the
        algorithm, then the id; only then calls `make` for the material, so that a refused generation costs nothing.
        That the algorithm suits the type is for the caller to check.
        """
        given = header.capabilities | header.delegated
        if given & ~self.session.delegated or header.domains & ~self.session.domains:
            raise DeviceError(ErrorCode.INSUFFICIENT_PERMISSIONS)
        self.device.enabled(header.algorithm)
        self.place(kind, header.id)
        one = header.stored(kind, 0, origin, make())
        return self.keep(one).id.to_bytes(2, "big")

    def place(self, kind: ObjectType, object_id: int) -> int:
        """The id a new object will get: INVALID ID, OBJECT EXISTS; for 0 a free one at random."""
        return self.device.store.place(kind, object_id, 1 + int.from_bytes(self.device.random(2), "big") % 0xFFFE)

    def keep(self, one: StoredObject) -> StoredObject:
        """Adds an object that is allowed already (imports check against their wrap key), giving it id and sequence."""
        placed = dataclasses.replace(one, id=self.place(one.type, one.id))
        return self.device.store.add(placed)
