import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.support.emulated_device import refused
from yubihsm_emulator.codes import Algorithm, ObjectType
from yubihsm_emulator.errors import ErrorCode
from yubihsm_emulator.objects import Header, StoredObject
from yubihsm_emulator.reader import Reader
from yubihsm_emulator.store import Filters, ObjectStore

KINDS = st.sampled_from(list(ObjectType))
IDS = st.integers(1, 12)


def opaque(object_id: int, size: int = 1, **fields: object) -> StoredObject:
    label = b"thing".ljust(40, b"\0")
    one = StoredObject(ObjectType.OPAQUE, object_id, label, 0xFFFF, 0, 0, Algorithm.OPAQUE_DATA, 0, 2, bytes(size))
    return dataclasses.replace(one, **fields)  # type: ignore[arg-type]


class StoreStory(RuleBasedStateMachine):
    """Against a dictionary: what is there, how often each place was written, how many pages are free."""

    def __init__(self) -> None:
        super().__init__()
        self.store = ObjectStore()
        self.there: dict[tuple[ObjectType, int], int] = {}
        self.written: dict[tuple[ObjectType, int], int] = {}

    def pages(self) -> int:
        return sum(-(-size // 126) for size in self.there.values())

    @rule(kind=KINDS, object_id=IDS, size=st.sampled_from([1, 126, 127, 3000]))
    def add(self, kind: ObjectType, object_id: int, size: int) -> None:
        one = opaque(object_id, size, type=kind)
        key = (kind, object_id)
        if key in self.there:
            refused(ErrorCode.OBJECT_EXISTS, lambda: self.store.place(*key))
            refused(ErrorCode.OBJECT_EXISTS, lambda: self.store.add(one))
        elif self.pages() + one.pages > 1024:
            refused(ErrorCode.STORAGE_FAILED, lambda: self.store.add(one))
        else:
            assert self.store.place(*key) == object_id
            assert self.store.add(one).sequence == self.written.get(key, 0)
            self.there[key] = one.length
            self.written[key] = self.written.get(key, 0) + 1

    @rule(kind=KINDS, object_id=IDS)
    def delete(self, kind: ObjectType, object_id: int) -> None:
        if (kind, object_id) in self.there:
            self.store.delete(self.store.find(kind, object_id, 1))
            del self.there[kind, object_id]
        else:
            refused(ErrorCode.OBJECT_NOT_FOUND, lambda: self.store.find(kind, object_id, 0xFFFF))

    @rule(kind=KINDS, object_id=IDS, size=st.sampled_from([1, 200]))
    def replace(self, kind: ObjectType, object_id: int, size: int) -> None:
        key = (kind, object_id)
        if key in self.there:
            one = self.store.replace(opaque(object_id, size, type=kind))
            assert one.sequence == self.written[key]
            self.there[key] = one.length
            self.written[key] += 1

    @invariant()
    def agrees(self) -> None:
        assert {(one.type, one.id): one.length for one in self.store} == self.there
        assert self.store.free_pages == 1024 - self.pages()


TestStoreStory = StoreStory.TestCase


def test_there_are_256_places() -> None:
    store = ObjectStore()
    for object_id in range(1, 257):
        store.add(opaque(object_id))
    refused(ErrorCode.STORAGE_FAILED, lambda: store.add(opaque(257)))
    store.delete(store.find(ObjectType.OPAQUE, 9, 1))
    assert store.add(opaque(257)).id == 257


def test_pages_allow_as_many_rsa_keys_as_published() -> None:
    for size, many in ((896, 127), (1344, 93), (1792, 68)):
        store = ObjectStore()
        store.add(opaque(1, 40))  # the authentication key
        for object_id in range(2, 2 + many):
            store.add(opaque(object_id, size))
        refused(ErrorCode.STORAGE_FAILED, lambda store=store, size=size: store.add(opaque(300, size)))


def test_sequences_wrap_at_a_byte() -> None:
    store = ObjectStore()
    for expected in [*range(256), 0, 1]:
        one = store.add(opaque(1))
        assert one.sequence == expected
        store.delete(one)


@given(st.sets(st.integers(1, 0xFFFE), max_size=20), st.integers(1, 0xFFFE))
def test_a_chosen_id_is_free_and_the_first_from_the_candidate(taken: set[int], candidate: int) -> None:
    store = ObjectStore()
    for object_id in taken:
        store.add(opaque(object_id))
    chosen = store.place(ObjectType.OPAQUE, 0, candidate)
    assert chosen not in taken
    assert 1 <= chosen <= 0xFFFE
    passed = range(candidate, chosen) if candidate <= chosen else [*range(candidate, 0xFFFF), *range(1, chosen)]
    assert taken.issuperset(passed)


def test_the_last_id_is_nobodys() -> None:
    refused(ErrorCode.INVALID_ID, lambda: ObjectStore().place(ObjectType.OPAQUE, 0xFFFF))


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters(), [1, 2, 3]),
        (Filters(id=2), [2]),
        (Filters(type=ObjectType.HMAC_KEY), [3]),
        (Filters(domains=0b110), [2, 3]),
        (Filters(capabilities=0b11), [1, 3]),
        (Filters(algorithm=Algorithm.OPAQUE_X509_CERTIFICATE), [2]),
        (Filters(b"other".ljust(40, b"\0")), [1]),
        (Filters(domains=0b10, capabilities=0b10), [3]),
        (Filters(id=9), []),
    ],
)
def test_filters_narrow_what_is_listed(filters: Filters, found: list[int]) -> None:
    store = ObjectStore()
    store.add(opaque(1, domains=0b001, capabilities=0b01, label=b"other".ljust(40, b"\0")))
    store.add(opaque(2, domains=0b010, algorithm=Algorithm.OPAQUE_X509_CERTIFICATE))
    store.add(opaque(3, domains=0b111, capabilities=0b10, type=ObjectType.HMAC_KEY))
    assert [one.id for one in store.list(filters, 0xFFFF)] == found
    assert [one.id for one in store.list(filters, 0b001)] == [one for one in found if one != 2]
    refused(ErrorCode.OBJECT_NOT_FOUND, lambda: store.find(ObjectType.OPAQUE, 2, 0b101))


@given(st.binary(max_size=70), st.booleans())
def test_headers_read_back_or_are_refused(data: bytes, delegating: bool) -> None:
    size = 61 if delegating else 53
    if len(data) < size:
        refused(ErrorCode.WRONG_LENGTH, lambda: Header.read(Reader(data), delegating=delegating))
    elif not 1 <= data[52] <= 55:
        refused(ErrorCode.INVALID_DATA, lambda: Header.read(Reader(data), delegating=delegating))
    else:
        header = Header.read(Reader(data), delegating=delegating)
        assert header.pack() == data[:size].ljust(61, b"\0")
        assert Header.of(header.stored(ObjectType.OPAQUE, 0, 0, b"")) == header
