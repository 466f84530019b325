"""Intake: a remembered shape gives the same call as the general parse; and what is no request is refused by name."""

from __future__ import annotations

import time

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk.wire.checked import Checked
from openk.wire.methods import METHODS
from openk.wire.reader import Limits, Reader, Request
from openk_daemon.call import Call, Outcome
from openk_daemon.intake import Intake, Prepared, foreign_fragment
from openk_daemon.refusal import Refusal
from tests.daemon.serving.kit import frame
from tests.support.custody import PEER


async def handle(_call: Call) -> Outcome:
    raise Refusal("internal")


class Taking:
    """A reader and an intake, as a connection has them."""

    def __init__(self, facts: tuple[tuple[str, str], ...] | None = None) -> None:
        self.facts = facts
        self.reader = Reader(Limits())
        self.intake = Intake(self.reader, PEER, dict.fromkeys(METHODS, handle), lambda _name: self.facts)

    def read(self, data: bytes) -> Request:
        message = self.reader.read(memoryview(bytearray(data)), 0, len(data))
        assert isinstance(message, Request)
        return message

    def take(self, data: bytes) -> tuple[Prepared, Checked, bool]:
        """What it is, and whether the shape was known."""
        request = self.read(data)
        return (*self.intake.take(request), request.shape != 0)


def said(prepared: Prepared, checked: Checked) -> object:
    return (
        prepared.method.name, prepared.name, prepared.resource, prepared.fragment, checked.batch,
        {name: bytes(value) if isinstance(value, memoryview) else value for name, value in checked.values.items()},
        [{n: bytes(v) if isinstance(v, memoryview) else v for n, v in item.items()} for item in checked.items],
    )  # fmt: skip


names = st.sampled_from(["payments/card", "mail/dkim", "v/k"])
payloads = st.binary(max_size=400)
singles = st.builds(lambda key, data, aad: {"key": key, "input": data, "aad": aad}, names, payloads, payloads)
batches = st.builds(
    lambda key, items: {"key": key, "items": [{"input": data} for data in items]},
    names, st.lists(payloads, min_size=1, max_size=5),
)  # fmt: skip


@given(st.lists(st.one_of(singles, batches), min_size=2, max_size=12))
def test_a_remembered_shape_and_the_general_parse_say_the_same(drawn: list[dict[str, object]]) -> None:
    taking = Taking((("algorithm", "aes-256-gcm"),))
    known = 0
    for msgid, params in enumerate(drawn * 2):
        data = frame(msgid, "key.encrypt", **params)
        prepared, checked, shaped = taking.take(data)
        known += shaped
        fresh = Taking(taking.facts).take(data)
        assert not fresh[2]
        assert said(prepared, checked) == said(*fresh[:2])
    assert known > 0


def test_a_key_that_was_not_at_hand_is_looked_up_at_each_call() -> None:
    taking = Taking()
    data = frame(1, "key.mac", key="v/k", input=b"1")
    assert taking.take(data)[0].resource is None
    prepared, _, shaped = taking.take(data)
    assert shaped
    assert prepared.resource is None


@pytest.mark.parametrize(
    ("data", "code", "mentions"),
    [
        (frame(1, "key.encript", key="v/k"), "request.unknown_method", "key.encrypt"),
        (frame(1, "x" * 100_000), "request.unknown_method", ""),
        (frame(1, "key.mac", key="v/k", inptu=b""), "request.invalid", "did you mean input"),
        (frame(1, "key.mac", key="v/k"), "request.invalid", "input is missing"),
        (frame(1, "key.mac", key="v/k", input=1), "request.invalid", "input"),
        (frame(1, "system.ping", echo=bytes(4097)), "request.invalid", "echo"),
        (frame(1, "key.describe", key="no vault"), "request.invalid", ""),
        (frame(1, "key.describe", key="../x"), "request.invalid", ""),
        (msgpack.packb([0, 1, "system.ping", [{"items": [{}]}]]), "request.invalid", "items"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, code: str, mentions: str) -> None:
    with pytest.raises(Refusal) as caught:
        Taking().take(data)
    assert caught.value.code.name == code
    assert mentions in f"{caught.value} {caught.value.details}"


def test_a_payload_too_long_is_refused_in_a_known_shape_too() -> None:
    taking = Taking()
    taking.take(frame(1, "system.ping", echo=bytes(4000)))
    assert taking.take(frame(1, "system.ping", echo=bytes(4096)))[2]
    with pytest.raises(Refusal) as caught:
        taking.take(frame(1, "system.ping", echo=bytes(4097)))
    assert caught.value.code.name == "request.invalid"
    assert caught.value.details == {"field": "echo"}


def test_a_long_unknown_method_costs_little_time() -> None:
    taking = Taking()
    request = taking.read(frame(1, "system.pin" + "".join(map(chr, range(97, 123))) * 36_000))
    began = time.thread_time()
    with pytest.raises(Refusal, match=r"request\.unknown_method"):
        taking.intake.take(request)
    assert time.thread_time() - began < 0.01


def test_what_it_remembers_is_bounded() -> None:
    taking = Taking()
    for n in range(200):
        taking.take(frame(1, "key.mac", key=f"v/k{n}", input=b"1"))
    assert len(taking.intake._prepared) <= 33
    assert set(taking.reader.shapes) <= set(taking.intake._prepared)


def test_foreign_methods_do_not_reach_the_log() -> None:
    request = Taking().read(frame(1, 'evil","outcome":"ok', a=1))
    assert foreign_fragment(request, PEER).startswith('"method":"unknown",')
