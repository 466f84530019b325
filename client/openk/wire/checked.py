"""Arguments that have been checked, and how to make them anew for a frame of the same shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Value = int | bool | str | memoryview | dict[str, memoryview] | list[str]
"""An argument; memoryviews are slices of the receive buffer."""


class InvalidArguments(Exception):
    """The parameters do not fit the method. `message` and `field` name fields, never values."""

    def __init__(self, message: str, field: str) -> None:
        self.message = message
        self.field = field
        super().__init__(message)


class Checked:
    """Arguments of one request: `values` are shared by all `items`. Not in batch form: one item, {} where the
    method has no item fields. `plain_text`: no value of a bytes field came as text, so a frame of this shape
    may be remembered. `sizes`: the most bytes of each bytes field of the method. Nobody changes the maps:
    `Template.fill` shares them between requests."""

    __slots__ = ("batch", "items", "plain_text", "sizes", "values")

    def __init__(
        self,
        values: dict[str, Value],
        items: list[dict[str, Value]],
        batch: bool,  # noqa: FBT001 - positional: made once a request
        plain_text: bool,  # noqa: FBT001
        sizes: Mapping[str, int],
    ) -> None:
        self.values = values
        self.items = items
        self.batch = batch
        self.plain_text = plain_text
        self.sizes = sizes


class _Place:
    """Where one hole belongs. `item` is an index into items, -1 for the shared values; `entry` is the name in
    a `fields` map, None for a field of its own."""

    __slots__ = ("entry", "item", "most", "name")

    def __init__(self, item: int, name: str, entry: str | None, most: int) -> None:
        self.item = item
        self.name = name
        self.entry = entry
        self.most = most


class Template:
    """The checked arguments of a shape: all but the payloads, and where those belong."""

    __slots__ = ("_batch", "_items", "_name", "_places", "_plain", "_sizes", "_values")

    def __init__(self, checked: Checked, holes: Sequence[memoryview]) -> None:
        """`checked` was made from the request that has these `holes` (the same objects, found by identity).
        Keeps none of them. Raises ValueError where the two do not belong together."""
        found: dict[int, _Place] = {}
        sizes = self._sizes = checked.sizes
        self._values = _without_views(checked.values, -1, sizes, found)
        self._items = [_without_views(item, index, sizes, found) for index, item in enumerate(checked.items)]
        self._batch = checked.batch
        if not checked.plain_text or len(found) != len(holes) or any(id(hole) not in found for hole in holes):
            raise ValueError("these are not the holes of these arguments")
        self._places = tuple(found[id(hole)] for hole in holes)
        self._plain = all(place.item >= 0 and place.entry is None for place in self._places)
        only = self._places[0] if len(self._places) == 1 else None
        self._name = only.name if only and only.item == 0 and only.entry is None and not self._batch else None

    def fill(self, holes: tuple[memoryview, ...]) -> Checked:
        """The arguments with these payloads, in the order of the frame. Raises InvalidArguments for one that
        is too long; there is nothing else that can be wrong."""
        name = self._name
        if name is None:
            return self._fill_all(holes)
        hole = holes[0]
        place = self._places[0]
        if len(hole) > place.most:
            raise _too_long(place)
        item = self._items[0].copy()
        item[name] = hole
        return Checked(self._values, [item], False, True, self._sizes)

    def _fill_all(self, holes: tuple[memoryview, ...]) -> Checked:
        if self._plain:
            values = self._values
            items = [item.copy() for item in self._items]
        else:
            values = _copy(self._values)
            items = [_copy(item) for item in self._items]
        for place, hole in zip(self._places, holes, strict=True):
            if len(hole) > place.most:
                raise _too_long(place)
            target = items[place.item] if place.item >= 0 else values
            if place.entry is None:
                target[place.name] = hole
            else:
                entries = target[place.name]
                if isinstance(entries, dict):
                    entries[place.entry] = hole
        return Checked(values, items, self._batch, True, self._sizes)


def _without_views(
    source: Mapping[str, Value], item: int, sizes: Mapping[str, int], found: dict[int, _Place]
) -> dict[str, Value]:
    rest: dict[str, Value] = {}
    for name, value in source.items():
        if isinstance(value, memoryview):
            found[id(value)] = _Place(item, name, None, sizes[name])
        elif isinstance(value, dict):
            for entry, view in value.items():
                found[id(view)] = _Place(item, name, entry, sizes[name])
            rest[name] = {}
        else:
            rest[name] = value
    return rest


def _copy(source: dict[str, Value]) -> dict[str, Value]:
    copy = source.copy()
    for name, value in copy.items():
        if isinstance(value, dict):
            copy[name] = value.copy()
    return copy


def _too_long(place: _Place) -> InvalidArguments:
    return InvalidArguments(f"{place.name} is longer than {place.most} bytes", place.name)
