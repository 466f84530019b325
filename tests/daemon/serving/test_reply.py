"""Replies: what msgpack reads is what the handler said; secrets come in leases alone, and every lease comes back."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from contextlib import ExitStack, suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon import reply
from openk_daemon.call import Answer, Plain, Sealed
from openk_daemon.pipeline import Results
from openk_daemon.refusal import Refusal
from openk_memory.errors import Exhausted
from openk_memory.lease import Lease
from openk_memory.pool import Pool
from tests.daemon.serving.kit import take_pool

scalars: st.SearchStrategy[Plain] = st.one_of(
    st.none(), st.booleans(), st.integers(0, (1 << 64) - 1), st.text(max_size=40), st.binary(max_size=300)
)
plains: st.SearchStrategy[Plain] = st.one_of(
    scalars, st.lists(scalars, max_size=5), st.dictionaries(st.text(max_size=5), scalars, max_size=4)
)
secret = st.binary(max_size=600).map(lambda data: ("secret", data))
fields = st.dictionaries(st.text(max_size=8), secret, min_size=1, max_size=5)
answers = st.dictionaries(st.text(max_size=8), st.one_of(plains, secret, fields), max_size=5)
results = st.lists(st.one_of(answers, st.just("refused")), min_size=1, max_size=6)

Drawn = Mapping[str, object]
POOL: Pool = take_pool(1 << 20)


def seal(value: object) -> object:
    if isinstance(value, tuple):
        lease = POOL.lease(len(value[1]) + 3)
        lease.view[: len(value[1])] = value[1]
        return Sealed(lease, len(value[1]))
    if isinstance(value, dict) and any(isinstance(part, tuple) for part in value.values()):
        return {name: seal(part) for name, part in value.items()}
    return value


def shown(value: object) -> object:
    if isinstance(value, tuple):
        return value[1]
    if isinstance(value, dict):
        return {name: shown(part) for name, part in value.items()}
    return value


def made(drawn: list[Drawn | str]) -> Results:
    return [
        Refusal("key.ciphertext_invalid")
        if isinstance(one, str)
        else {name: seal(value) for name, value in one.items()}  # type: ignore[misc]  # as drawn
        for one in drawn
    ]


def take(encoded: bytes | Lease) -> bytes:
    if isinstance(encoded, bytes):
        return encoded
    with encoded as lease:
        return bytes(lease.view)


def holds_secret(drawn: object) -> bool:
    return isinstance(drawn, tuple) or (isinstance(drawn, dict) and any(map(holds_secret, drawn.values())))


@given(results, st.booleans(), st.integers(0, 0xFFFF_FFFF), st.sampled_from(["pair", "map"]))
def test_msgpack_reads_what_the_handler_said(drawn: list[Drawn | str], batch: bool, msgid: int, form: reply.Form) -> None:
    given_ = drawn if batch else drawn[:1]
    encoded = reply.encode(msgid, made(given_), batch, form, "r-1", POOL, 7)
    secrets = any(map(holds_secret, given_))
    assert isinstance(encoded, Lease) == secrets
    kind, answered, error, result = msgpack.unpackb(take(encoded), strict_map_key=False)
    assert (kind, answered) == (1, msgid)
    if batch:
        assert error is None
        for got, said in zip(result["results"], given_, strict=True):
            if isinstance(said, str):
                assert got["error"]["code"] == "key.ciphertext_invalid"
            else:
                assert got == shown(said)
    elif isinstance(given_[0], str):
        assert result is None
        assert isinstance(error, list if form == "pair" else dict)
    else:
        assert (error, result) == (None, shown(given_[0]))
    assert POOL.in_use == 0


@pytest.mark.parametrize(
    ("size", "code"), [(100 << 10, "daemon.overloaded"), (600 << 10, "request.too_large")], ids=["now", "never"]
)
def test_without_room_it_says_so_and_gives_everything_back(size: int, code: str) -> None:
    small = take_pool(1 << 20)
    lease = small.lease(size)
    with ExitStack() as others:
        with suppress(Exhausted):
            while True:
                others.enter_context(small.lease(size))
        encoded = reply.encode(1, [{"bytes": Sealed(lease, size)}], False, "map", "r-1", small, 7)
        _, _, error, _ = msgpack.unpackb(take(encoded))
    assert error["code"] == code
    assert ("retry_after" in error) is (code == "daemon.overloaded")  # waiting helps, or it never will
    assert small.in_use == 0


@pytest.mark.parametrize("batch", [False, True])
def test_what_cannot_be_packed_still_gives_everything_back(batch: bool) -> None:
    answer: Answer = {"a": Sealed(POOL.lease(10), 10), "b": {1, 2}}  # type: ignore[dict-item]  # the mistake
    with pytest.raises(TypeError):
        reply.encode(1, [answer], batch, "pair", "r-1", POOL, 7)
    gc.collect()
    assert POOL.in_use == 0


def test_a_write_that_fails_gives_the_room_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_view: memoryview, _pieces: object) -> int:
        raise Exhausted("no", requested=1, in_use=0, capacity=0, owner=None, possible=True)

    monkeypatch.setattr(reply, "write", fail)
    take(reply.encode(1, [{"a": Sealed(POOL.lease(10), 10)}], False, "pair", "r-1", POOL, 7))
    assert POOL.in_use == 0
