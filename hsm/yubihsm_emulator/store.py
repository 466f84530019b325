import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from yubihsm_emulator.codes import NOBODY, ObjectType
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.objects import StoredObject

MAX_OBJECTS: Final = 256
MAX_PAGES: Final = 1024

Key = tuple[ObjectType, int]


@dataclass(frozen=True, slots=True)
class Filters:
    """What LIST OBJECTS asks for: all that are given must match. Masks match where any bit does."""

    label: bytes | None = None
    id: int | None = None
    type: int | None = None
    domains: int | None = None
    capabilities: int | None = None
    algorithm: int | None = None

    def match(self, one: StoredObject) -> bool:
        return (
            (self.id is None or one.id == self.id)
            and (self.type is None or one.type == self.type)
            and (self.domains is None or bool(one.domains & self.domains))
            and (self.capabilities is None or bool(one.capabilities & self.capabilities))
            and (self.algorithm is None or one.algorithm == self.algorithm)
            and (self.label is None or one.label == self.label)
        )


class ObjectStore:
    """The objects of a device by type and id, within its limits: 256 objects and 1024 pages of 126 bytes."""

    def __init__(self) -> None:
        self._objects: dict[Key, StoredObject] = {}
        self._written: dict[Key, int] = {}
        self._pages = 0
        self.version = 0
        """Grows with every change."""

    def __iter__(self) -> Iterator[StoredObject]:
        return iter(self._objects.values())

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def free_pages(self) -> int:
        return MAX_PAGES - self._pages

    @property
    def written(self) -> dict[Key, int]:
        """How often each (type, id) has been written since the last reset: survives deletion."""
        return self._written

    def get(self, kind: ObjectType, object_id: int) -> StoredObject | None:
        """The object, whoever asks."""
        return self._objects.get((kind, object_id))

    def find(self, kind: ObjectType, object_id: int, domains: int) -> StoredObject:
        """The object, if one of these domains sees it; else OBJECT NOT FOUND."""
        found = self.get(kind, object_id)
        if found is None or not found.domains & domains:
            raise DeviceError(ErrorCode.OBJECT_NOT_FOUND)
        return found

    def list(self, filters: Filters, domains: int) -> "list[StoredObject]":
        return [one for one in self if one.domains & domains and filters.match(one)]

    def place(self, kind: ObjectType, object_id: int, candidate: int = 1) -> int:
        """The id a new object gets: the one asked for, or for 0 the first free one from `candidate` (give a random
        one) upwards, in a circle.  INVALID ID, OBJECT EXISTS."""
        if object_id == NOBODY:
            raise DeviceError(ErrorCode.INVALID_ID)
        if object_id:
            if (kind, object_id) in self._objects:
                raise DeviceError(ErrorCode.OBJECT_EXISTS)
            return object_id
        usable = NOBODY - 1  # many times more than objects
        circle = ((candidate - 1 + step) % usable + 1 for step in range(usable))
        return next(chosen for chosen in circle if (kind, chosen) not in self._objects)

    def add(self, one: StoredObject) -> StoredObject:
        """Keeps the object (its id from `place`) and numbers it: the sequence counts earlier writes of its type and id.
        STORAGE FAILED when it does not fit."""
        if len(self) >= MAX_OBJECTS or one.pages > self.free_pages:
            raise DeviceError(ErrorCode.STORAGE_FAILED)
        key = (one.type, one.id)
        if key in self._objects:
            raise DeviceError(ErrorCode.OBJECT_EXISTS)
        return self._write(one)

    def replace(self, one: StoredObject) -> StoredObject:
        """Puts another material under an existing (type, id): a write, so the sequence advances."""
        self._pages -= self._objects[one.type, one.id].pages
        return self._write(one)

    def delete(self, one: StoredObject) -> None:
        del self._objects[one.type, one.id]
        self._pages -= one.pages
        self.version += 1

    def restore(self, one: StoredObject) -> None:
        """Puts an object back as it was saved, sequence and all. `written` is restored by the caller."""
        self._objects[one.type, one.id] = one
        self._pages += one.pages

    def _write(self, one: StoredObject) -> StoredObject:
        key = (one.type, one.id)
        writes = self._written.get(key, 0)
        numbered = dataclasses.replace(one, sequence=writes & 0xFF)
        self._written[key] = writes + 1
        self._objects[key] = numbered
        self._pages += one.pages
        self.version += 1
        return numbered
