"""Errors as other doors tell them: RFC 9457 and google.rpc.Status, for every code of the table."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from math import ceil
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk.wire.codes import BY_NUMBER, CODES, Code, Fault
from openk.wire.problem import problem_of
from openk.wire.rpc_status import GrpcCode, reason_of, status_bytes, status_json

EVERY = pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.name)
details = st.dictionaries(
    st.text(min_size=1, max_size=20),
    st.one_of(st.text(), st.integers(-(2**63), 2**63), st.booleans(), st.lists(st.text(max_size=9), max_size=4)),
    max_size=4,
)
told = st.fixed_dictionaries(
    {},
    optional={
        "request": st.text("0123456789abcdef-", min_size=1, max_size=20),
        "retry_after": st.floats(0, 1e6),
        "details": details,
    },
)

# What protobuf's own Python library (googleapis-common-protos 1.70) makes of request.rate_limited, "slow down".
VECTOR = bytes.fromhex(
    "08081209736c6f7720646f776e1a760a28747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e4572726f72496e66"
    "6f124a0a14524551554553545f524154455f4c494d4954454412056f70656e6b1a0d0a066e756d62657212033130341a1c0a04636f646512"
    "14726571756573742e726174655f6c696d697465641a350a28747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e"
    "5265747279496e666f12090a0708011080e59a771a370a2a747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e52"
    "657175657374496e666f12090a07356630632d3262"
)


# --- the table itself ---


@EVERY
def test_each_row_has_statuses_that_exist(code: Code) -> None:
    assert 400 <= HTTPStatus(code.http) <= 599
    assert GrpcCode[code.grpc] is not GrpcCode.OK
    assert 1 <= code.exit <= 78
    assert code.meaning.endswith(".")
    assert code.advice.endswith(".")
    assert re.fullmatch(r"[a-z]+\.[a-z_]+|internal", code.name)
    assert BY_NUMBER[code.number] is code


@EVERY
def test_who_is_at_fault_agrees_with_the_status(code: Code) -> None:
    """A 4xx is for the caller or the administrator who sent it; what is nobody's request is a 5xx."""
    if code.http < 500:
        known = {Fault.CALLER, Fault.OPERATOR}
        lost = code.name in {"store.conflict", "audit.unknown_entry"}  # another client was faster; a wrong index
        assert code.fault in known or lost
    else:
        assert code.fault is not Fault.CALLER
    if code.retry:
        assert code.fault is not Fault.OPERATOR or code.name == "store.full"  # free space comes back by itself, too


def test_numbers_are_grouped_by_who_is_at_fault() -> None:
    for code in CODES.values():
        hundreds = {1: {"request", "auth", "policy"}, 2: {"key", "vault", "secret"}, 3: {"hsm"}, 4: {"store", "audit", "backup"}}
        assert code.group in hundreds.get(code.number // 100, {"internal", "daemon"})


# --- RFC 9457 ---


@settings(max_examples=150, deadline=None)
@given(code=st.sampled_from([*CODES.values()]), message=st.text(max_size=200), facts=told)
def test_a_problem_has_the_members_of_the_rfc(code: Code, message: str, facts: dict[str, object]) -> None:
    made = problem_of(code, message, **facts)  # type: ignore[arg-type]  # drawn as its parameters are
    body = json.loads(made.body)
    assert urlsplit(body["type"]).scheme == "urn", "an absolute URI (3.1.1)"
    assert body["type"].endswith(code.name)
    assert body["status"] == made.status == code.http, "the same as the response's (3.1.2)"
    assert body["title"] == code.meaning, "does not change from occurrence to occurrence (3.1.3)"
    assert body["detail"] == message
    assert ("instance" in body) == ("request" in facts)
    for name in body:
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{2,}", name), "names of extensions (3.2)"
    headers = dict(made.headers)
    assert headers["Content-Type"] == "application/problem+json"
    if "retry_after" in facts:
        wait = facts["retry_after"]
        assert isinstance(wait, float)
        assert int(headers["Retry-After"]) == ceil(wait)
    else:
        assert "Retry-After" not in headers


# --- google.rpc.Status ---


def fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """The protobuf wire format, read by the book (protobuf.dev/programming-guides/encoding)."""
    found: list[tuple[int, int | bytes]] = []
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        tag = varint()
        if tag & 7 == 0:
            found.append((tag >> 3, varint()))
        else:
            assert tag & 7 == 2
            length = varint()
            found.append((tag >> 3, data[position : position + length]))
            position += length
    assert position == len(data)
    return found


def one(data: bytes, number: int) -> bytes:
    (value,) = [value for found, value in fields(data) if found == number] or [b""]
    assert isinstance(value, bytes)
    return value


def read_status(data: bytes) -> dict[str, object]:
    """Back to the JSON form."""
    (code,) = [value for number, value in fields(data) if number == 1]
    shown: list[dict[str, object]] = []
    for number, value in fields(data):
        if number == 3:
            assert isinstance(value, bytes)
            name, message = one(value, 1).decode(), one(value, 2)
            if name.endswith("ErrorInfo"):
                pairs = [entry for found, entry in fields(message) if found == 3]
                metadata = {one(pair, 1).decode(): one(pair, 2).decode() for pair in pairs if isinstance(pair, bytes)}
                info = {"reason": one(message, 1).decode(), "domain": one(message, 2).decode(), "metadata": metadata}
                shown.append({"@type": name, **info})
            elif name.endswith("RetryInfo"):
                delay = dict(fields(one(message, 1)))
                shown.append({"@type": name, "retryDelay": f"{delay.get(1, 0)}.{delay.get(2, 0):09}s"})
            else:
                shown.append({"@type": name, "requestId": one(message, 1).decode()})
    return {"code": code, "message": one(data, 2).decode(), "details": shown}


def test_the_bytes_are_those_that_protobuf_makes() -> None:
    code = CODES["request.rate_limited"]
    made = status_bytes(code, "slow down", request="5f0c-2b", retry_after=1.25)
    assert read_status(made) == read_status(VECTOR)  # entries of a map come in any order
    assert sorted(made) == sorted(VECTOR)


@settings(max_examples=150, deadline=None)
@given(code=st.sampled_from([*CODES.values()]), message=st.text(max_size=200), facts=told)
def test_bytes_and_json_say_the_same(code: Code, message: str, facts: dict[str, object]) -> None:
    shown = status_json(code, message, **facts)  # type: ignore[arg-type]  # drawn as its parameters are
    assert read_status(status_bytes(code, message, **facts)) == shown  # type: ignore[arg-type]
    assert json.loads(json.dumps(shown)) == shown


@EVERY
def test_reasons_are_what_error_info_wants(code: Code) -> None:
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+[A-Z0-9]", reason_of(code))
    assert len(reason_of(code)) <= 63


def test_the_canonical_numbers() -> None:
    """google/rpc/code.proto; HTTP mappings are in its comments."""
    names = (
        "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
        "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
        "UNAUTHENTICATED"
    )
    assert [code.name for code in GrpcCode] == names.split()
    assert [int(code) for code in GrpcCode] == list(range(17))
