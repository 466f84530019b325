"""Facts and errors as plain values that are safe to write down.  Redaction is by type, and by name.

What may hold a secret (bytes, memoryviews, leases, anything unknown) is shown as its type and length and
never as its value; text, numbers and enumerations are shown, unless their name says that they are secret.  Secrets
never become `str` in openk (docs/threat-model.md), so these are a second and a third fence, not the first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from types import TracebackType
from typing import Final, cast

Shown = None | bool | int | float | str | list["Shown"] | dict[str, "Shown"]

TEXT_MOST: Final = 512
"""Characters of one text; the rest is cut."""
ITEMS_MOST: Final = 32
DEPTH_MOST: Final = 4
CHAIN_MOST: Final = 6
"""Errors shown of one chain of causes."""
FRAMES_MOST: Final = 8
"""Innermost frames shown of each error."""


SECRET_WORDS: Final = frozenset({
    "pin", "pins", "puk", "password", "passwords", "passwd", "passphrase", "plaintext", "private", "seed", "entropy",
    "credential", "credentials", "cookie", "authorization", "otp", "share", "shares",
})  # fmt: skip
"""A fact with one of these words in its name is shown as its type, whatever it is. `secret` and `key` are not among
them: they name what clients name (payments/db/password), and who may know the names is policy's affair."""
_READABLE: Final = (str, int, float, dict, list, tuple, set, frozenset)
_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@lru_cache(1024)
def is_secret(name: str) -> bool:
    """Whether a value of that name (`user_pin`, `userPin`) is kept out of the log. Names come from code."""
    return any(word.lower() in SECRET_WORDS for word in _WORDS.findall(name))


def show(value: object, depth: int = DEPTH_MOST) -> Shown:
    """`value` as JSON may hold it. Never raises for any value, and never calls its `repr` or `str`."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}" if not isinstance(value, str) else cut(value.value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return cut(str.__str__(value))
    if isinstance(value, bytes | bytearray):
        return f"<{type(value).__name__} of {len(value)} bytes>"
    if isinstance(value, memoryview):
        return f"<memoryview of {_length(cast('memoryview[int]', value))} bytes>"
    if isinstance(value, BaseException):
        return chain(value)
    if depth == 0:
        return f"<{type(value).__name__}>"
    return _show_container(value, depth)


def _show_container(value: object, depth: int) -> Shown:
    if type(value) is dict:
        pairs = cast("dict[object, object]", value)
        return {_key(key): _by_name(_key(key), pairs[key], depth - 1) for key in list(pairs)[:ITEMS_MOST]}
    if type(value) in (list, tuple, set, frozenset):
        items = cast("Sequence[object]", value)
        return [show(item, depth - 1) for item in list(items)[:ITEMS_MOST]]
    return opaque(value)


def opaque(value: object) -> str:
    """The type of a value and, where it tells one cheaply (`Lease.size`, `Sealed.length`), its length."""
    for name in ("size", "length"):
        length = getattr(value, name, None)
        if isinstance(length, int):
            return f"<{type(value).__name__} of {length} bytes>"
    return f"<{type(value).__name__}>"


def _length(value: memoryview[int]) -> int | str:
    try:
        return value.nbytes
    except ValueError:  # a memoryview that was released
        return "released"


def _key(key: object) -> str:
    return cut(key) if isinstance(key, str) else f"<{type(key).__name__}>"


def cut(text: str) -> str:
    return text if len(text) <= TEXT_MOST else f"{text[:TEXT_MOST]}… ({len(text)} characters)"


def chain(error: BaseException) -> list[Shown]:
    """An error and what caused it, outermost first: type, text (where it is safe), code, innermost frames.

    Never source lines and never values of variables. Members of an exception group are listed under `errors`.
    """
    shown: list[Shown] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(shown) < CHAIN_MOST:
        seen.add(id(current))
        shown.append(_one(current))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return shown


def _one(error: BaseException) -> dict[str, Shown]:
    one: dict[str, Shown] = {"type": f"{type(error).__module__}.{type(error).__qualname__}"}
    text = safe_text(error)
    if text:
        one["text"] = text
    device = getattr(error, "device", None)  # HsmError: the device's own code
    if isinstance(device, str) and device:
        one["device"] = cut(device)
    frames = _frames(error.__traceback__)
    if frames:
        one["at"] = frames
    if isinstance(error, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[BaseException]", error).exceptions
        one["errors"] = [chain(member) for member in members[:CHAIN_MOST]]
    return one


def safe_text(error: BaseException) -> str:
    """What an error says, unless it was made from values that may be secret; then "" (its type must do)."""
    if isinstance(error, UnicodeError):
        return cut(error.reason) if isinstance(error, UnicodeDecodeError | UnicodeEncodeError) else ""
    allowed = (str, int, float, BaseException, type(None), *((list, tuple) if _is_group(error) else ()))
    if not all(isinstance(argument, allowed) for argument in error.args):
        return ""
    try:
        return cut(str(error))
    except Exception as failure:  # noqa: BLE001 - a foreign __str__ must not silence the log line
        return f"<its text failed: {type(failure).__name__}>"


def _is_group(error: BaseException) -> bool:
    """Its second argument is the list of its members, which its text does not show."""
    return isinstance(error, BaseExceptionGroup)


def _frames(traceback: TracebackType | None) -> list[Shown]:
    frames: list[Shown] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        place = "/".join(code.co_filename.rsplit("/", 3)[-3:])
        frames.append(f"{place}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return frames[-FRAMES_MOST:]


def plain(facts: Mapping[str, object]) -> dict[str, Shown]:
    return {name: _by_name(name, value, DEPTH_MOST) for name, value in facts.items()}


def _by_name(name: str, value: object, depth: int) -> Shown:
    kind = type(value)
    if issubclass(kind, _READABLE) and kind is not bool and is_secret(name):
        return f"<{kind.__name__} withheld>"
    return show(value, depth)
