"""Bytes reach files whole and closed to others, and never disturb a terminal."""

from __future__ import annotations

import os
import pty
import stat
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_tools import outlet
from openk_tools.outlet import Way
from openk_tools.rendering import from_json, jsonable
from openk_tools.values import Answer


def on_a_terminal(write: Callable[[], None]) -> tuple[int, bytes]:
    """Exit status (2: click.UsageError) and what appears, of `write` in a child whose output is a terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        import sys  # noqa: PLC0415

        sys.stdout = os.fdopen(1, "w", closefd=False)
        try:
            write()
            os._exit(0)
        except click.UsageError:
            os._exit(2)
        finally:
            os._exit(99)
    seen = b""
    try:
        while data := os.read(terminal, 1000):
            seen += data
    except OSError:
        pass  # the child has gone
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), seen


BINARY = b"\x1b[31m\x00\xff"


def test_binary_secret_is_refused_on_a_terminal() -> None:
    assert on_a_terminal(lambda: outlet.emit(BINARY, secret=True, way=Way(), out="--out")) == (2, b"")


def test_other_bytes_are_shown_as_base64_on_a_terminal() -> None:
    assert on_a_terminal(lambda: outlet.emit(BINARY, secret=False, way=Way(), out="--out")) == (0, b"G1szMW0A/w==\r\n")


def test_text_is_shown_as_it_is_on_a_terminal() -> None:
    assert on_a_terminal(lambda: outlet.emit("grün\tx".encode(), secret=True, way=Way(), out="--out")) == (
        0,
        "grün\tx\r\n".encode(),
    )


def test_raw_insists() -> None:
    assert on_a_terminal(lambda: outlet.emit(BINARY, secret=True, way=Way(force=True), out="--out"))[1] == BINARY


def test_hex_and_base64_are_for_every_output() -> None:
    assert on_a_terminal(lambda: outlet.emit(BINARY, secret=True, way=Way("hex"), out="--out")) == (
        0,
        BINARY.hex().encode() + b"\r\n",
    )


@given(st.binary(max_size=60) | st.text(max_size=20).map(str.encode))
def test_text_is_what_can_be_shown(value: bytes) -> None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        assert not outlet.is_text(value)
    else:
        controls = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))} - {"\t", "\n"}
        assert outlet.is_text(value) == (not controls & set(text))


def test_secret_file_is_the_owners_only(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        outlet.save(str(tmp_path / "s"), b"x", secret=True, way=Way())
        outlet.save(str(tmp_path / "p"), b"x", secret=False, way=Way())
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o644


def test_file_is_replaced_whole_and_links_stay(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old and longer")
    (tmp_path / "link").symlink_to("real")
    outlet.save(str(tmp_path / "link"), b"new", secret=True, way=Way())
    assert (tmp_path / "real").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        del descriptor
        raise OSError(28, "No space left on device")

    (tmp_path / "f").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        outlet.save(str(tmp_path / "f"), b"new", secret=True, way=Way())
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_what_is_no_plain_file_is_written_to() -> None:
    outlet.save("/dev/null", b"x", secret=True, way=Way())
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


texts = st.text(max_size=8).filter(lambda name: not name.endswith("_base64"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts | st.binary(max_size=8),
    lambda inner: (
        st.dictionaries(texts, inner, max_size=3)
        | st.lists(inner.filter(lambda x: not isinstance(x, bytes)), max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(texts, values, max_size=4))
def test_json_form_comes_back(value: Answer) -> None:
    assert from_json(jsonable(value)) == value


def test_bad_base64_is_named() -> None:
    with pytest.raises(click.UsageError, match="input_base64"):
        from_json({"input_base64": "not base64!"})
