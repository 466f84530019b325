"""Every method of the table has a typed method, in every client, with the table's parameters, and its answer is
read as the table says."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass

import msgpack
import pytest

import openk
import openk.trio
from openk import nouns
from openk.answers import Misfit, Reply, decode_result
from openk.errors import Error, KeyFault, Unintelligible
from openk.operation import Operation, operate_untyped
from openk.secret import Secret
from openk.verbs import Verb
from openk.wire.methods import METHODS, Field, Kind, Method
from openk.wire.reader import Limits, Reader, Request, Response
from openk.wire.writer import lay_out_request

SPACES = {"system": "System", "vault": "Vaults", "key": "Keys", "random": "Randomness", "secret": "Secrets", "hsm": "Hsms", "backup": "Backups", "policy": "Policies", "audit": "Audit"}  # fmt: skip
BATCH = [name for name, method in METHODS.items() if method.item]
SAMPLES: dict[Kind, object] = {
    Kind.BYTES: b"bytes", Kind.TEXT: "text", Kind.INTEGER: 3, Kind.FLAG: True, Kind.FIELDS: {"a": b"x"},
    Kind.TEXTS: ["a", "b"], Kind.INTEGERS: [1, 2], Kind.MAP: {"message_bytes": 5},
}  # fmt: skip
MAPS: dict[str, object] = {"due": {"at": "t", "rule": "r", "action": "tell"}}
"""By field, where the SDK reads what is in it."""
ROWS = {
    "vaults": {"vault": "v", "created": "t"},
    "keys": {"key": "v/k", "algorithm": "a", "purpose": "p", "protection": "w", "version": 1},
    "versions": {"version": 1, "created": "t", "uses": 0},
    "secrets": {"secret": "v/s", "version": 1, "created": "t"},
    "entries": {"index": 0, "entry": "{}"},
    "backups": {"backup": "b", "made": "t", "entries": 1, "signed": 1, "bytes": 1},
    "methods": {"name": "system.ping"},
    "signals": {"signal": "health", "unit": "", "summary": "s", "now": 1_500_000, "values": [None, 2_000_000]},
    "alerts": {
        "alert": "hsm_down", "severity": "page", "raised": True, "since": 1, "signal": "hsm_down", "value": 1_000_000,
        "raise_at": 1_000_000, "clear_at": 0, "for_seconds": 10, "text": "t",
    },
    "events": {
        "number": 1, "kind": "alert.raised", "at": 1, "severity": "page", "subject": "hsm_down", "value": 1_000_000, "text": "t",
    },
    "settings": {"key": "log.level", "value": "info", "origin": "default", "live": True},
    "changes": {"key": "log.level", "running": "info", "files": "debug", "origin": "a:1", "live": True},
    "checks": {"check": "random", "outcome": "ok", "text": "t", "microseconds": 3},
    "objects": {
        "state": "ok",
        "role": "key",
        "name": "v/k",
        "version": 1,
        "label": "l",
        "id": "00",
        "kind": "private",
        "algorithm": "p-256",
    },
}
_HSM = {"hsm": "main", "state": "up", "workers": 1, "configured": 1}
_COUNTED = ("queued", "in_flight", "restarts", "replayed", "quarantined", "timed_out", "busy", "rejected", "trips")
_COUNTS = dict.fromkeys(_COUNTED, 0)
ROWS_OF: dict[str, dict[str, dict[str, object]]] = {
    "hsm.list": {"hsms": {**_HSM, "label": "t"}},
    "hsm.status": {"hsms": {**_HSM, **_COUNTS, "breaker": False, "latched": False, "advice": ""}},
    "hsm.info": {"keys": {"algorithm": "a", "purpose": "p", "resident": True, "wrapped": True, "cached": False}},
}


def make(name: str, suffix: str = "") -> Callable[..., Operation[object]]:
    noun, verb = name.split(".")
    found: Verb[..., object] = getattr(getattr(nouns, SPACES[noun]), verb + suffix)
    return found.make


def sample(field: Field) -> object:
    return field.choices[0] if field.choices else SAMPLES[field.kind]


def result_of(method: Method) -> dict[str, object]:
    rows = {**ROWS, **ROWS_OF.get(method.name, {})}
    return {
        field.name: [rows[field.name]] if field.kind is Kind.LIST else MAPS.get(field.name, SAMPLES[field.kind])
        for field in method.result
    }


def plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def decoded(method: str, result: object) -> object:
    view = memoryview(bytearray(msgpack.packb([1, 1, None, result])))
    response = Reader(Limits()).read(view, 0, len(view))
    assert isinstance(response, Response)
    return decode_result(method, response.result)


@pytest.mark.parametrize("name", METHODS)
def test_parameters_are_those_of_the_table(name: str) -> None:
    method = METHODS[name]
    parameters = inspect.signature(make(name)).parameters
    expected = {field.name: field for field in (*method.fields, *method.item)}
    assert set(parameters) == set(expected)
    for parameter in parameters.values():
        required = expected[parameter.name].required
        assert (parameter.default is inspect.Parameter.empty) == required
        assert name == "system.hello" or parameter.default in {inspect.Parameter.empty, None}


@pytest.mark.parametrize("name", BATCH)
def test_batch_parameters_are_those_of_the_table(name: str) -> None:
    parameters = inspect.signature(make(name, "_many")).parameters
    assert set(parameters) == {field.name for field in METHODS[name].fields} | {"items"}


def test_there_are_the_methods_of_the_table_and_no_others() -> None:
    expected = {name: set[str]() for name in SPACES.values()}
    for name, method in METHODS.items():
        noun, verb = name.split(".")
        expected[SPACES[noun]] |= {verb, f"{verb}_many"} if method.item else {verb}
    for space, verbs in expected.items():
        found = {name for name, verb in vars(getattr(nouns, space)).items() if isinstance(verb, Verb)}
        assert found == verbs


def test_clients_have_every_noun(tmp_path: object) -> None:
    client = openk.Client(f"{tmp_path}/none")
    for calls in (client, client.within(1), client.pipeline(), openk.trio.Client(f"{tmp_path}/none")):
        for noun, space in SPACES.items():
            assert type(getattr(calls, noun)).__name__ == space


def test_a_bound_method_shows_signature_and_help(tmp_path: object) -> None:
    client = openk.Client(f"{tmp_path}/none")
    assert client.key.encrypt is client.key.encrypt
    assert list(inspect.signature(client.key.encrypt).parameters) == ["key", "input", "aad", "version", "hash"]
    assert client.key.encrypt.__doc__ == nouns.Keys.encrypt.__doc__
    assert "AES" in (client.key.encrypt.__doc__ or "")


@pytest.mark.parametrize("name", METHODS)
def test_what_is_sent_and_what_comes_back(name: str) -> None:
    """Every field is sent under its name, in an order that ends with bytes; every field of the result is told."""
    method = METHODS[name]
    given = {field.name: sample(field) for field in (*method.fields, *method.item)}
    operation = make(name)(**given)
    assert operation.method == name
    assert operation.repeatable == (not method.changes)
    frame = b"".join(lay_out_request(1, name, operation.params))
    sent = msgpack.unpackb(frame)[3][0]
    assert sent == given
    kinds = [isinstance(value, bytes | dict) for value in sent.values()]
    assert kinds == sorted(kinds)

    result = operation.finish(decoded(name, result_of(method)))
    if is_dataclass(result):
        told = {field.name: plain(getattr(result, field.name)) for field in fields(result)}
        assert {key: value for key, value in told.items() if not isinstance(value, list)} == {
            key: value for key, value in result_of(method).items() if not isinstance(value, list) and key in told
        }
        left_out = {field.name for field in method.result} - set(told)
        assert left_out <= {"valid"}


@pytest.mark.parametrize("name", METHODS)
def test_an_answer_that_is_not_as_the_table_says(name: str) -> None:
    """Each required field missing, and each of another type, is an error, not a wrong value."""
    method = METHODS[name]
    operation = make(name)(**{field.name: sample(field) for field in (*method.fields, *method.item)})
    for field in method.result:
        result = result_of(method)
        if field.required:
            del result[field.name]
            with pytest.raises(Unintelligible):
                operation.finish(decoded(name, result))
        result[field.name] = 1.5
        with pytest.raises(Unintelligible):
            operation.finish(decoded(name, result))
    with pytest.raises(Unintelligible):
        operation.finish(decoded(name, [1]))


@pytest.mark.parametrize("name", BATCH)
def test_batch_form_is_sent_and_read(name: str) -> None:
    method = METHODS[name]
    shared = {field.name: sample(field) for field in method.fields}
    item = {field.name: sample(field) for field in method.item}
    operation = make(name, "_many")(items=[item, item], **shared)
    sent = msgpack.unpackb(b"".join(lay_out_request(1, name, operation.params)))[3][0]
    assert sent == {**shared, "items": [item, item]}
    assert list(sent)[-1] == "items"
    error = {"code": "key.unknown", "message": "No such key."}
    results = operation.finish(decoded(name, {"results": [result_of(method), {"error": error}]}))
    assert isinstance(results, list)
    assert is_dataclass(results[0])
    assert isinstance(results[1], KeyFault)
    with pytest.raises(Unintelligible):
        operation.finish(decoded(name, {"results": [result_of(method)]}))


def test_bare_bytes_stand_for_an_item_of_one_field() -> None:
    operation = make("key.decrypt", "_many")("v/k", [b"a", {"ciphertext": bytearray(b"b"), "aad": b"c"}])
    sent = msgpack.unpackb(b"".join(lay_out_request(1, "key.decrypt", operation.params)))[3][0]
    assert sent == {"key": "v/k", "items": [{"ciphertext": b"a"}, {"ciphertext": b"b", "aad": b"c"}]}


@pytest.mark.parametrize("name", METHODS)
def test_secrets_come_as_secret_and_nothing_else_does(name: str) -> None:
    method = METHODS[name]
    answer = decoded(name, result_of(method))
    assert isinstance(answer, dict)
    for field in method.result:
        value = answer[field.name]
        if field.kind is Kind.FIELDS:
            assert isinstance(value, dict)
            value = next(iter(value.values()))
        assert isinstance(value, Secret) == field.secret


def test_all_bytes_of_an_unknown_method_are_taken_for_secret() -> None:
    answer = decoded("key.invented", {"a": b"x", "b": [{"c": b"y"}]})
    assert answer == {"a": Secret(b"x"), "b": [{"c": Secret(b"y")}]}


def test_frames_of_a_method_share_their_beginning() -> None:
    """What the daemon's memory of shapes lives on."""
    reader = Reader(Limits())
    for number, payload in enumerate((b"one", b"another")):
        operation = make("key.encrypt")("v/k", payload, version=3)
        frame = memoryview(b"".join(lay_out_request(number, "key.encrypt", operation.params)))
        request = reader.read(frame, 0, len(frame))
        assert isinstance(request, Request)
        if number == 0:
            reader.learn(request)
    assert request.shape


@pytest.mark.parametrize(
    "params", [{"a": object()}, {"a": {1: b""}}, {"a": [object()]}, {"a": memoryview(b"abcd")[::2]}]
)
def test_what_cannot_be_sent_is_a_type_error(params: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        operate_untyped("x.y", params)


def test_reply_names_the_misfit() -> None:
    with pytest.raises(Misfit, match="a"):
        Reply({"a": True}).integer("a")
    with pytest.raises(Misfit):
        Reply({"a": [1]}).texts("a")
    with pytest.raises(Misfit):
        Reply({"a": {"b": "public"}}).secrets("a")
    assert isinstance(Error("x.y"), Exception)
