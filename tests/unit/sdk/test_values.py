"""Secret and the errors."""

from __future__ import annotations

import copy
import pickle

import pytest

from openk import errors
from openk.errors import GROUPS, DaemonFault, Error, make_error, read_error
from openk.secret import Secret
from openk.wire.codes import CODES
from openk.wire.writer import describe_error


def test_secret_is_wiped_in_place_at_the_end_of_a_block() -> None:
    secret = Secret(b"canary")
    with secret as inside, memoryview(inside) as view:
        assert bytes(inside) == b"canary"
    assert view is not None
    assert bytearray(secret) == bytes(6)


def test_secret_is_wiped_after_an_exception_too() -> None:
    secret = Secret(b"canary")
    with pytest.raises(ZeroDivisionError), secret:
        raise ZeroDivisionError
    assert bytes(secret) == bytes(6)


def test_secret_does_not_show_itself() -> None:
    secret = Secret(b"canary")
    assert "canary" not in f"{secret!r} {secret} {[secret]}"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(secret)
    with pytest.raises(TypeError):
        hash(secret)


def test_secret_compares_by_content() -> None:
    assert Secret(b"a") == b"a"
    assert Secret(b"a") == Secret(b"a")
    assert Secret(b"a") != b"b"
    assert Secret(b"a") != b"ab"
    assert Secret(b"a") != "a"
    assert Secret(b"a") == memoryview(b"a")


def test_every_code_has_the_class_of_its_group() -> None:
    for code in CODES:
        error = make_error(code)
        assert isinstance(error, GROUPS[code.partition(".")[0]])
        assert type(error) is not Error
        assert error.message == CODES[code].meaning


def test_every_class_is_reached_and_documented() -> None:
    named = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Error)]
    reached = {kind for code in CODES for kind in type(make_error(code)).__mro__}
    assert set(named) <= reached
    assert all(kind.__doc__ for kind in named)


@pytest.mark.parametrize("code", CODES)
def test_both_forms_of_the_wire_are_read(code: str) -> None:
    row = CODES[code]
    pair = read_error(describe_error(row, "It: failed.", form="pair"))  # type: ignore[arg-type]
    assert (type(pair), pair.code, pair.message) == (type(make_error(code)), code, "It: failed.")
    told = describe_error(row, "It failed.", form="map", request="r1", retry_after=2, details={"name": "x"})
    whole = read_error(told)  # type: ignore[arg-type]
    assert (whole.code, whole.message, whole.request) == (code, "It failed.", "r1")
    assert (whole.retry_after, whole.details) == (2.0, {"name": "x"})


@pytest.mark.parametrize("told", [None, 5, "text", [], [1], [1, 2], {}, {"code": 5}])
def test_an_error_of_another_form(told: object) -> None:
    assert read_error(told).code == "daemon.unintelligible"  # type: ignore[arg-type]


def test_a_code_of_a_newer_daemon() -> None:
    error = read_error({"code": "moon.full", "message": "Wait.", "details": 5, "retry_after": "x", "request": 1})
    assert (type(error), error.code, error.message) == (Error, "moon.full", "Wait.")
    assert isinstance(read_error([9999, "daemon.new: x"]), DaemonFault)
    assert read_error([500, "something else"]).code == "internal"


def test_errors_can_be_pickled() -> None:
    error = make_error("hsm.busy", "m", request="r", retry_after=1.0, details={"a": 1})
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again)) == (type(error), vars(error))
