"""A worker's lines: whole JSON, fields for journald, never in the HSM's way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openk_hsm import journal
from openk_hsm.repeats import MOST

_TELLING = """
import sys
import time
from openk_hsm import journal, journald
if sys.argv[1:]:
    journal._JOURNAL.journald = True
    journal._JOURNAL.socket = journald.connect(sys.argv[1])
for at in range(int(sys.stdin.readline())):
    journal.log("info", f"event {at}", request=f"0a-{at}", text="x" * 200)
print("done")
"""


def test_under_journald_a_line_has_fields_to_look_up_by(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        done = subprocess.run(
            [sys.executable, "-c", _TELLING, path], input="1\n", capture_output=True, text=True, check=True, timeout=30
        )
        entry = listener.recv(1 << 16).decode()
    assert done.stderr == ""
    fields = dict(line.split("=", 1) for line in entry.splitlines())
    assert json.loads(fields["MESSAGE"])["request"] == "0a-0"
    assert (fields["OPENK_REQUEST"], fields["OPENK_EVENT"], fields["PRIORITY"]) == ("0a-0", "event 0", "6")
    assert fields["SYSLOG_IDENTIFIER"] == "openk-hsm"
    gone = subprocess.run(
        [sys.executable, "-c", _TELLING, path], input="1\n", capture_output=True, text=True, check=True, timeout=30
    )
    assert gone.stderr.startswith('<6>{"time"')  # nobody listens there any more: the stream has it


def test_a_reader_that_stalls_does_not_stall_the_worker() -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _TELLING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writer, text=True
    )
    os.close(writer)
    try:
        said, _ = process.communicate("2000\n", timeout=30)  # several times what a pipe holds
    finally:
        process.kill()
    assert said == "done\n"
    with os.fdopen(reader, "rb") as stream:
        lines = [json.loads(line) for line in stream.read().splitlines()]
    assert 0 < len(lines) < 2000


def test_a_long_line_stays_json_and_repeats_are_counted(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_JOURNAL", journal._Journal())
    journal.log("error", "long", request="0a-1", text="\x00é" * 3000, code="x")
    (line,) = capfd.readouterr().err.splitlines()
    assert len(line) < 4096
    told = json.loads(line)
    assert (told["request"], told["code"], told["cut"]) == ("0a-1", "x", True)
    for _ in range(MOST + 5):
        journal.log("info", "again")
        journal.log("debug", "unheard")
    assert len(capfd.readouterr().err.splitlines()) == MOST
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 11.0)
    journal.tell_suppressed()
    journal.tell_suppressed()
    (silence,) = capfd.readouterr().err.splitlines()
    assert json.loads(silence)["of"] == "again"
    assert json.loads(silence)["suppressed"] == 5
