"""The wire: any bytes at all, with msgpack as the oracle."""

from __future__ import annotations

from collections.abc import Iterator

from openk.conversation import Conversation
from openk.operation import Operation
from openk.wire.arguments import check
from openk.wire.checked import InvalidArguments
from openk.wire.messages import RawValue
from openk.wire.methods import METHODS
from openk.wire.reader import Limits, Notification, ProtocolError, Reader, Request, Response
from tests.fuzz.target import Target
from tests.wire.frames import buffer, pack, plain
from tests.wire.oracle import compare_with_oracle

_Outcome = tuple[object, ...]
_VALUES = {"text": "v/k", "bytes": b"x" * 20, "integer": 16, "flag": True, "fields": {"user": b"u"}, "texts": ["a"]}


def _requests() -> Iterator[bytes]:
    """One good request for each method, single and as a batch."""
    for number, method in enumerate(METHODS.values()):
        values = {
            field.name: field.choices[0] if field.choices else _VALUES[field.kind.name.lower()]
            for field in (*method.fields, *method.item)
        }
        yield pack([0, number, method.name, [values]])
        if method.item:
            shared = {field.name: values[field.name] for field in method.fields}
            item = {field.name: values[field.name] for field in method.item}
            yield pack([0, number << 20, method.name, [shared | {"items": [item, item]}]])


def _messages() -> Iterator[bytes]:
    yield from _requests()
    yield pack([1, 7, None, {"value": b"x" * 300, "names": ["a", None, 1.5, -(1 << 40)]}])
    yield pack([1, 1 << 31, [21, "key.not_found: no such key"], None])
    yield pack([2, "redraw", [[1, 2], {"a": {}}]])
    yield pack([0, 300, "m" * 40, [{"k" * 300: "é" * 200, "deep": [[[[1]]]]}]])
    yield pack([0, 1, "m", []])


def _told(outcome: Request | Notification | Response | None, reader: Reader) -> _Outcome:
    match outcome:
        case None:
            return ("incomplete",)
        case Notification():
            return ("notification", outcome.method, reader.position)
        case Response():
            return ("response", outcome.msgid, repr(plain(outcome.error)), repr(plain(outcome.result)), reader.position)
        case Request():
            holes = [bytes(hole) for hole in outcome.holes]
            return ("request", outcome.msgid, outcome.method, repr(plain(outcome.params)), holes, reader.position)


def _read(reader: Reader, view: memoryview, end: int) -> _Outcome:
    try:
        return _told(reader.read(view, 0, end), reader)
    except ProtocolError as error:
        return ("error", error.reason, error.fatal, error.msgid, error.code, None if error.fatal else reader.position)


def run_reader(data: bytes) -> None:
    """As msgpack takes it, whole and in pieces; within the limits of a connection, too."""
    compare_with_oracle(data)
    view, _, _ = buffer(data, behind=b"\xc1" * 8)
    for limits in (Limits(), Limits(message_bytes=64, values=16)):
        whole = _read(Reader(limits), view, len(data))
        pieces = Reader(limits)
        found: _Outcome = ("incomplete",)
        for end in range(len(data) + 1):
            found = _read(pieces, view, end)
            if found != ("incomplete",):
                break
            assert pieces.needed > end
        if whole[0] != "error":
            assert found == whole
        elif found != whole:
            # In pieces a lost stream may be seen to be lost earlier, and then in other words; or, where it must be longer
            # anyway, when that much of it has come.
            assert whole[2]
            assert found == ("incomplete",) or (found[0] == "error" and found[2])


def _filled(params: RawValue, holes: Iterator[memoryview]) -> object:
    """`params` with other payloads, in the frame's order."""
    match params:
        case memoryview():
            return bytes(next(holes))
        case dict():
            return {key: _filled(value, holes) for key, value in params.items()}
        case list():
            return [_filled(value, holes) for value in params]
        case _:
            return plain(params)


def run_shapes(data: bytes) -> None:
    """One frame is learned, the next is read with that memory: what is recalled must be what a parse would give."""
    if len(data) < 2:
        return
    cut = 2 + min(int.from_bytes(data[:2], "big"), len(data) - 2)
    first, second = data[2:cut], data[cut:]
    reader, limits = Reader(Limits()), Limits()
    view, start, end = buffer(first, behind=b"\x00" * 4)
    try:
        learned = reader.read(view, start, end)
    except ProtocolError:
        return
    if not isinstance(learned, Request):
        return
    reader.learn(learned)
    shape = reader.learn(learned)  # without payloads it must come twice
    for frame in (first[: reader.position], second):
        view, start, end = buffer(frame, behind=b"\x00" * 4)
        outcome = _read(Reader(limits), view, end)
        try:
            found = reader.read(view, start, end)
        except ProtocolError:
            assert outcome[0] == "error"
            return
        if not isinstance(found, Request) or not found.shape:
            assert _told(found, reader) == outcome
            continue
        assert found.shape == shape
        holes = [bytes(hole) for hole in found.holes]
        params = repr(_filled(learned.params, iter(found.holes)))
        assert ("request", found.msgid, found.method, params, holes, reader.position) == outcome


def run_arguments(data: bytes) -> None:
    """What a reader lets through is taken or refused by the table of methods, and a payload stays the same object."""
    try:
        found = Reader(Limits()).read(*buffer(data))
    except ProtocolError:
        return
    if not isinstance(found, Request):
        return
    views = {id(hole) for hole in found.holes}
    for method in [METHODS[found.method]] if found.method in METHODS else METHODS.values():
        try:
            checked = check(method, found.params)
        except InvalidArguments as error:
            told = error.message
            assert len(told) < 2000
            assert told.isprintable()
            continue
        for values in (checked.values, *checked.items):
            for field in (*method.fields, *method.item):
                value = values.get(field.name)
                if isinstance(value, memoryview):
                    assert len(value) <= field.most
                    assert id(value) in views or isinstance(found.params, dict)
                if isinstance(value, str) and field.choices:
                    assert value in field.choices


def run_conversation(data: bytes) -> None:
    """A client hears nonsense: the good answers before it, whole or in pieces the same."""
    heard: list[list[str]] = []
    nonsense: list[bool] = []
    for size in (len(data) or 1, 7):
        conversation = Conversation()
        for method in METHODS:
            conversation.begin(Operation(method, {}, _keep))
        answers: list[str] = []
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            while piece:
                with conversation.space() as space:
                    taken = min(len(space), len(piece))
                    space[:taken] = piece[:taken]
                piece = piece[taken:]
                answers += map(repr, conversation.received(taken))
        heard.append(answers)
        nonsense.append(conversation.nonsense is not None)
    assert heard[0] == heard[1]
    # In pieces a message that is lost, and must be longer anyway, is refused when that much of it has come (`run_reader`).
    assert nonsense[0] or not nonsense[1]


def _keep(result: object) -> object:
    return result


_WORDS = (
    *(method.encode() for method in METHODS),
    *sorted({field.name.encode() for method in METHODS.values() for field in (*method.fields, *method.item)}),
    b"\x94\x00", b"\x94\x01", b"\x93\x02", b"\xc4", b"\xc5\x01\x00", b"\xc6\x00\x00\x00\x01", b"\xde\x00\x01",
    b"\xdf\x00\x00\x00\x01", b"\xdc\x00\x01", b"\xdd\xff\xff\xff\xff", b"\xc1", b"\xd9\x01", b"items",
)  # fmt: skip

TARGETS = (
    Target("reader", run_reader, _messages, _WORDS, 256, 2500),
    Target("shapes", run_shapes, lambda: (len(one).to_bytes(2, "big") + one * 2 for one in _messages()), _WORDS, 512),
    Target("arguments", run_arguments, _requests, _WORDS, 512),
    Target("conversation", run_conversation, _messages, _WORDS, 512, 800),
)
