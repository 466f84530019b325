"""Golden transcripts: each file in transcripts/ is a session at a shell, replayed against a fake daemon.

    $ openk ARGUMENTS [< FILE]     a command; what follows is its output
    ! text                         a line on standard error
    ? 66                           an exit status that is not 0
    $ cat FILE                     what a command wrote

`OPENK_UPDATE_TRANSCRIPTS=1 pytest tests/unit/tools/test_transcripts.py` writes them anew: read the difference.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_daemon import FakeDaemon
from tests.unit.tools.answers import ANSWERS, FILES
from tests.unit.tools.stage import run, write_files

FOLDER = Path(__file__).with_name("transcripts")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_transcript(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = path.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENK_SOCKET", str(tmp_path / "socket"))
    write_files(tmp_path, FILES)
    with FakeDaemon(tmp_path / "socket", ANSWERS):
        played = "".join(play(kept)).replace(str(tmp_path), "FOLDER")
    if os.environ.get("OPENK_UPDATE_TRANSCRIPTS"):
        path.write_text(played, encoding="utf-8")
    assert played == kept


def play(transcript: str) -> Iterator[str]:
    """The transcript as it comes out now; lines that begin with `##` are kept."""
    for line in transcript.splitlines():
        if line.startswith("## "):
            yield f"{line}\n"
        elif line.startswith("$ cat "):
            yield f"{line}\n{_shown(Path(line.removeprefix('$ cat ')).read_bytes())}"
        elif line.startswith("$ openk"):
            yield f"{line}\n"
            words = shlex.split(line.removeprefix("$ openk"))
            given = b""
            if "<" in words:
                given = Path(words.pop()).read_bytes()
                words.pop()
            ran = run(words, given)
            yield _shown(ran.out)
            yield "".join(f"! {told}\n" for told in ran.err.splitlines())
            if ran.status:
                yield f"? {ran.status}\n"


def _shown(output: bytes) -> str:
    text = output.decode("utf-8", "backslashreplace")
    text = "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)
    return text if not text or text.endswith("\n") else f"{text}\\\n"


def test_every_transcript_shows_something() -> None:
    assert all("$ openk" in path.read_text() for path in FOLDER.glob("*.txt"))
    assert len(list(FOLDER.glob("*.txt"))) >= 8
