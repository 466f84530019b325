"""What is read comes whole, or not at all, and can be wiped."""

from __future__ import annotations

import contextlib
import os
import pty
import threading
import time
from pathlib import Path
from typing import NoReturn

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_memory import kernel
from openk_memory.errors import LockLimitTooLow, Unsupported
from openk_tools import held, material, prompt


@given(content=st.binary(max_size=300_000))
def test_file_is_read_whole(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("m") / "f"
    path.write_bytes(content)
    assert material.read(str(path)) == content


@pytest.mark.parametrize("size", [0, 1, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 1_000_000])
def test_pipe_is_read_whole(size: int, tmp_path: Path) -> None:
    fifo, content = tmp_path / "fifo", os.urandom(size)
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(content,))
    writer.start()
    assert material.read(str(fifo)) == content
    writer.join()


def test_larger_than_any_message_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(material.MOST + 1)
    with pytest.raises(click.ClickException, match="16 MiB"):
        material.read(str(path))
    with path.open("wb") as file:
        file.truncate(material.MOST)
    assert len(material.read(str(path))) == material.MOST


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(click.FileError, match="No such file"):
        material.read(str(tmp_path / "none"))
    with pytest.raises(click.FileError, match="directory"):
        material.read(str(tmp_path))


def test_wipe_reaches_into_maps_and_lists() -> None:
    one, two, three = bytearray(b"one"), bytearray(b"two"), bytearray(b"three")
    held.wipe(one, {"fields": {"a": two}, "text": "kept"}, [three, 4, None])
    assert [bytes(part) for part in (one, two, three)] == [bytes(3), bytes(3), bytes(5)]


@pytest.mark.parametrize(
    ("given", "left"), [(b"a\n", b"a"), (b"a\r\n", b"a"), (b"a\n\n", b"a\n"), (b"a", b"a"), (b"", b""), (b"\n", b"")]
)
def test_trim_drops_one_line_end(given: bytes, left: bytes) -> None:
    whole = memoryview(bytearray(given))
    assert held.trim(whole) == left
    assert not any(whole[len(left) :])


def test_a_room_is_locked() -> None:
    before = kernel.locked_bytes()
    room = held.room(100_000)
    assert len(room) == 100_000
    assert kernel.locked_bytes() - before >= 100_000


@pytest.mark.parametrize("error", [LockLimitTooLow(1, 2, 3), Unsupported("not here")])
def test_without_locked_memory_ordinary_memory_takes_its_place(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(size: int) -> NoReturn:
        raise error

    monkeypatch.setattr(held, "Region", refuse)
    (tmp_path / "f").write_bytes(b"hunter2\n")
    read = material.read(str(tmp_path / "f"))
    assert held.trim(read) == b"hunter2"
    held.wipe(read)
    assert read == bytes(8)


def ask_on_a_terminal(*typed: bytes, again: bool) -> tuple[int, bytes, bytes]:
    """Exit status of a child whose controlling terminal gets the lines `typed`, what it read, what was seen."""
    got, give = os.pipe()
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.write(give, prompt.ask("Value", again=again))
            os._exit(0)
        except click.UsageError:
            os._exit(2)
        except click.Abort:
            os._exit(3)
        finally:
            os._exit(99)
    os.close(give)
    seen = b""
    for line in typed:
        while not seen.rstrip().endswith(b":"):
            seen += os.read(terminal, 1000)
        time.sleep(0.02)
        seen += b"|"
        os.write(terminal, line)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(got, "rb") as pipe:
        read = pipe.read()
    with contextlib.suppress(OSError):
        seen += os.read(terminal, 1000)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), read, seen


def test_prompt_reads_a_line_and_shows_nothing() -> None:
    status, read, seen = ask_on_a_terminal(b"hunter2\n", again=False)
    assert (status, read) == (0, b"hunter2")
    assert b"hunter2" not in seen


def test_prompt_asks_twice_and_compares() -> None:
    assert ask_on_a_terminal(b"hunter2\n", b"hunter2\n", again=True)[:2] == (0, b"hunter2")
    assert ask_on_a_terminal(b"hunter2\n", b"hunter3\n", again=True)[:2] == (2, b"")


def test_prompt_is_ended_by_ctrl_d() -> None:
    assert ask_on_a_terminal(b"\x04", again=False)[:2] == (3, b"")
