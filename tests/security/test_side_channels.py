"""What a caller can learn from answers, and from how long our own code takes."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.keys.cached import ORDER, shape_scalar
from openk_hsm.seam import Algorithm
from tests.support.daemon import RunningDaemon, copy_template, running_daemon, template
from tests.support.secret_work import KEYS, Line

__all__ = ["template"]

CURVES = list(ORDER)
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("curve", CURVES)
@given(data=st.data())
def test_a_scalar_is_taken_exactly_where_it_is_in_range(curve: Algorithm, data: st.DataObject) -> None:
    order = int.from_bytes(ORDER[curve], "big")
    size = len(ORDER[curve])
    near = st.sampled_from([0, 1, order - 1, order, order + 1, 256**size - 1, order - 256, order + 256])
    drawn = data.draw(near | st.integers(0, 256**size - 1))
    scalar = memoryview(bytearray(drawn.to_bytes(size, "big")))
    taken = shape_scalar(curve, scalar)
    assert taken == (0 < int.from_bytes(scalar, "big") < order)


def steps(curve: Algorithm, scalar: bytes) -> int:
    """Lines of our code that are run."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal count
        del frame, argument
        count += event == "line"
        return trace

    view = memoryview(bytearray(scalar))
    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]  # its own type is recursive
    try:
        shape_scalar(curve, view)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("curve", CURVES)
def test_the_same_steps_whatever_the_scalar(curve: Algorithm) -> None:
    size = len(ORDER[curve])
    candidates = [bytes(size), bytes(size - 1) + b"\x01", ORDER[curve], b"\x01" * size, b"\xff" * size]
    assert len({steps(curve, candidate) for candidate in candidates}) == 1


SECRETS = frozenset({
    *("mac", "tag", "pin", "password", "secret", "cryptogram", "receipt"),
    *("plaintext", "plain", "shared", "derived", "material"),
})  # fmt: skip
PUBLIC = {
    ("parse.py", "tag"): "the type byte of MessagePack",
    ("shapes.py", "tag"): "the type byte of MessagePack",
    ("audit_verify.py", "tag"): "the type byte of DER",
    ("selftest.py", "mac"): "of a fixed message, under a key that is made for the test",
    ("selftest.py", "plain"): "a fixed text",
    ("sealing.py", "material"): "the header of an envelope",
    ("audit_verify.py", "receipt"): "of the audit log, published",
}  # fmt: skip
"""What has such a name and may be compared with == all the same."""


def test_what_has_the_name_of_a_secret_is_compared_in_constant_time() -> None:
    """`==` stops at the first difference. So each comparison in our code of something that is called like a secret goes
    through `compare_digest`, or is listed here with the reason why it tells nothing."""
    found: set[tuple[str, str]] = set()
    for root in ("client/openk", "memory/openk_memory", "hsm/openk_hsm", "daemon/openk_daemon", "tools/openk_tools"):
        for path in (ROOT / root).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Compare) and any(isinstance(each, ast.Eq | ast.NotEq) for each in node.ops):
                    found |= {(path.name, name) for name in names(node) & SECRETS}
    assert found == set(PUBLIC)


def names(node: ast.AST) -> set[str]:
    """Of variables and attributes below it."""
    inside = list(ast.walk(node))
    variables = {each.id for each in inside if isinstance(each, ast.Name)}
    return {name.strip("_") for name in variables | {each.attr for each in inside if isinstance(each, ast.Attribute)}}


@pytest.fixture(scope="module")
def daemon(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(copy_template(template, tmp_path_factory.mktemp("side") / "dev")) as running:
        line = Line(running.socket)
        line.ask("vault.create", vault="v")
        for name, params in KEYS.items():
            line.ask("key.create", key=f"v/{name}", **params)
        line.close()
        yield running


def refusals(line: Line, method: str, field: str, good: bytes, spots: range, **params: object) -> set[str]:
    """The whole errors for one bit flipped at each of `spots`."""
    told: set[str] = set()
    for spot in spots:
        broken = bytearray(good)
        broken[spot] ^= 0x40
        error, _ = line.exchange(line.frame(method, {field: bytes(broken), **params}))
        assert error is not None
        told.add(str(error))
    return told


@pytest.mark.parametrize("key", ["v/seal", "v/cached"])
def test_an_error_does_not_tell_where_a_ciphertext_is_wrong(daemon: RunningDaemon, key: str) -> None:
    """Nonce, text, tag and AAD: one answer for all."""
    line = Line(daemon.socket)
    sealed = line.ask("key.encrypt", key=key, input=b"some plaintext", aad=b"a")["ciphertext"]
    told = refusals(line, "key.decrypt", "ciphertext", sealed, range(23, len(sealed)), key=key, aad=b"a")
    error, _ = line.exchange(line.frame("key.decrypt", {"key": key, "ciphertext": sealed, "aad": b"b"}))
    assert told == {str(error)}
    assert len(told) == 1
    line.close()


def test_an_error_does_not_tell_padding_from_anything_else(daemon: RunningDaemon) -> None:
    """RSA-OAEP: no oracle in the words (Manger's attack needs one), wherever the block is wrong."""
    line = Line(daemon.socket)
    sealed = line.ask("key.encrypt", key="v/rsa", input=b"x" * 20, hash="sha-1")["ciphertext"]
    spots = range(len(sealed) - 1, 1, -19)
    told = refusals(line, "key.decrypt", "ciphertext", sealed, spots, key="v/rsa", hash="sha-1")
    error, _ = line.exchange(
        line.frame("key.decrypt", {"key": "v/rsa", "ciphertext": b"\x01" * len(sealed), "hash": "sha-1"})
    )
    assert told == {str(error)}
    line.close()


def test_a_wrapped_key_that_is_wrong_tells_no_more(daemon: RunningDaemon) -> None:
    line = Line(daemon.socket)
    wrapped = line.ask("key.wrap", key="v/kek", input=b"k" * 32)["wrapped"]
    assert len(refusals(line, "key.unwrap", "wrapped", wrapped, range(23, len(wrapped)), key="v/kek")) == 1
    line.close()
