"""The README's examples run."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import trio

import openk
from tests.support.fake_daemon import Answer, FakeDaemon

README = Path(openk.__file__).parent / "README.md"
BLOCKING, ASYNC = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
KEY = {"key": "payments/card", "algorithm": "aes-256-gcm", "purpose": "encrypt", "protection": "wrapped", "version": 1}
ANSWERS: dict[str, Answer] = {
    "vault.create": {"vault": "payments", "created": "t"},
    "key.create": {**KEY, "versions": []},
    "key.encrypt": {"ciphertext": b"c", "version": 1},
    "key.decrypt": {"plaintext": b"4111 1111 1111 1111", "version": 1},
    "key.sign": {"results": [{"signature": b"s", "version": 1}, {"error": {"code": "key.exhausted", "message": "m"}}]},
    "secret.get": {"value": b"v", "version": 4, "created": "t"},
    "system.health": {"status": "ok", "components": {}},
    "system.ping": {"echo": b"hi"},
}


def test_blocking_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OPENK_SOCKET", str(tmp_path / "s"))
    with FakeDaemon(tmp_path / "s", ANSWERS):
        exec(compile(BLOCKING, README, "exec"), {})
    assert capsys.readouterr().out.splitlines() == [
        "19",
        "Signature(signature=b's', version=1)",
        "key.exhausted: m",
        "[4, 4]",
    ]


async def test_async_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENK_SOCKET", str(tmp_path / "s"))
    space: dict[str, object] = {"trio": trio}
    lines = ASYNC.replace("import openk.trio\n", "")
    code = f"import openk.trio\nasync def example():\n{textwrap.indent(lines, '    ')}"
    exec(compile(code, README, "exec"), space)
    with FakeDaemon(tmp_path / "s", ANSWERS) as daemon:
        await space["example"]()  # type: ignore[operator]  # made by the lines above
    assert daemon.asked("key.encrypt") == [{"key": "payments/card", "input": b"4111 1111 1111 1111"}]
