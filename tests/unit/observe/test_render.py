"""Nothing that may be secret is written down, whatever shape it comes in."""

import json
from dataclasses import dataclass
from enum import Enum, StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.observe.render import CHAIN_MOST, TEXT_MOST, chain, plain, safe_text, show

CANARY = b"canary-7f3a9c"
TEXT = CANARY.decode()


class Leaky:
    """A value whose repr and str tell everything."""

    size = 13

    def __repr__(self) -> str:
        return TEXT

    __str__ = __repr__


@dataclass
class Bare:
    value: bytes


def test_what_may_be_secret_is_type_and_length() -> None:
    assert show(CANARY) == "<bytes of 13 bytes>"
    assert show(bytearray(CANARY)) == "<bytearray of 13 bytes>"
    assert show(memoryview(CANARY)) == "<memoryview of 13 bytes>"
    assert show(Leaky()) == "<Leaky of 13 bytes>"
    assert show(Bare(CANARY)) == "<Bare>"


def test_a_released_view_does_not_raise() -> None:
    view = memoryview(CANARY)
    view.release()
    assert show(view) == "<memoryview of released bytes>"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.just(CANARY) | st.builds(Leaky) | st.builds(memoryview, st.just(CANARY)),
        lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_no_nesting_lets_a_secret_out(value: object) -> None:
    assert TEXT not in json.dumps(show(value))


def test_plain_values_stay_themselves() -> None:
    class Kind(StrEnum):
        ONE = "one"

    class Number(Enum):
        TWO = 2

    facts = plain({"n": 3, "f": 0.5, "yes": True, "none": None, "s": "text", "kind": Kind.ONE, "number": Number.TWO})
    assert facts == {"n": 3, "f": 0.5, "yes": True, "none": None, "s": "text", "kind": "one", "number": "Number.TWO"}


def test_long_text_is_cut() -> None:
    shown = show("x" * (TEXT_MOST + 1))
    assert isinstance(shown, str)
    assert shown.startswith("x" * TEXT_MOST)
    assert shown.endswith("(513 characters)")


@pytest.mark.parametrize(
    "error",
    [
        ValueError(CANARY), KeyError(memoryview(CANARY)), ValueError("bad", [CANARY]), RuntimeError(Leaky()),
        UnicodeDecodeError("utf-8", CANARY, 0, 1, "invalid start byte"), ExceptionGroup("many", [ValueError(CANARY)]),
    ],
)  # fmt: skip
def test_an_error_made_of_bytes_does_not_speak(error: Exception) -> None:
    assert TEXT not in json.dumps(chain(error))
    assert "99, 97, 110" not in json.dumps(chain(error))


def test_the_chain_tells_types_texts_places_and_device_codes() -> None:
    class DeviceError(Exception):
        device = "CKR_DEVICE_ERROR"

    def inner() -> None:
        raise DeviceError("the token is gone")

    try:
        try:
            inner()
        except DeviceError as cause:
            raise ValueError("cannot sign") from cause
    except ValueError as error:
        shown = chain(error)
    first, second = (one for one in shown if isinstance(one, dict))
    assert first["text"] == "cannot sign"
    assert second["text"] == "the token is gone"
    assert second["device"] == "CKR_DEVICE_ERROR"
    assert isinstance(second["at"], list)
    assert str(second["at"][-1]).endswith(" inner")


def test_from_none_hides_the_context_and_cycles_end() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__context__ = two
    two.__context__ = one
    assert len(chain(one)) == 2
    one.__suppress_context__ = True
    assert len(chain(one)) == 1
    long = ValueError("0")
    for number in range(20):
        error = ValueError(str(number))
        error.__cause__ = long
        long = error
    assert len(chain(long)) == CHAIN_MOST


def test_an_error_that_cannot_speak_does_not_silence_the_line() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert safe_text(Mute("x")) == "<its text failed: ZeroDivisionError>"
