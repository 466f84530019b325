"""openkd's configuration: the main file and one that is included, of any bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from openk_daemon.config import Config, ConfigError, read
from openk_daemon.config_sources import INCLUDE, VARIABLES, lines_of
from tests.fuzz.scratch import scratch
from tests.fuzz.target import Target

_CUT = b"\n#---\n"
"""Parts the main file from the included one."""
_DOCUMENTS = ("docs/configuration.md", "docs/operations.md", "docs/hsm.md")
_ROOT = Path(__file__).parents[3]
_KEY = re.compile(r"^\| `([a-z_.A-Z]+)`", re.MULTILINE)


def run_config(data: bytes) -> None:
    """Read, or every mistake with its place; and what was read comes from where it says."""
    folder = scratch("config")
    main, _, included = data.partition(_CUT)
    path = folder / "openkd.toml"
    path.write_bytes(main)
    more = folder / INCLUDE / "more.toml"
    more.parent.mkdir(exist_ok=True)
    more.write_bytes(included)
    try:
        loaded = read(path, {"OPENKD_STATE": "/srv/openk"})
    except ConfigError as error:
        assert error.mistakes  # noqa: PT017 - only where there was one
        for mistake in error.mistakes:
            assert mistake.startswith((str(path), str(more), "environment"))
    else:
        assert isinstance(loaded.config, Config)
        assert loaded.config.state == Path("/srv/openk")
        assert all(place.startswith((str(path), str(more), "environment")) for place in loaded.origins.values())
        assert loaded.again().config == loaded.config
    text = main.decode("utf-8", "replace")
    assert all(1 <= line <= len(text.splitlines()) for line in lines_of(text).values())


def _files() -> Iterator[bytes]:
    for name in _DOCUMENTS:
        for block in re.findall(r"```toml\n(.*?)```", (_ROOT / name).read_text("utf-8"), re.DOTALL):
            yield block.encode()
    yield b'[hsm.a]\nsockets = ["/a"]\n[hsm.b]\nsockets = ["/b"]\n[hsm.both]\ngroup = ["a", "b"]' + _CUT + (
        b'administrators = ["root", 1000]\n[limits]\nmessage_bytes = 4096\n[rate.all]\nmethods = ["key.*"]\n'
    )
    yield b'[log.levels]\npolicy = "debug"\n[alerts.disk]\nraise = 1\n[tuning]\n[hardening]\n[metrics]\nsocket = "/m"\n'


def _words() -> tuple[bytes, ...]:
    keys = set(_KEY.findall((_ROOT / _DOCUMENTS[0]).read_text("utf-8")))
    return (*(key.encode() for key in sorted(keys)), *(name.encode() for name in VARIABLES), b'"""', b"[[", b"]]", _CUT)


TARGETS = (Target("config", run_config, _files, _words(), 1024, 800),)
