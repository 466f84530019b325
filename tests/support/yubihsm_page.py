"""The generated parts of docs/hsm.md's section on the YubiHSM. `python -m tests.support.yubihsm_page` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from openk_hsm.uri import parse_uri
from openk_hsm.yubihsm import setup
from openk_hsm.yubihsm.kinds import KINDS, capability_names

PAGE = Path(__file__).parents[2] / "docs" / "hsm.md"
_MARKED = re.compile(r"<!-- yubihsm (?P<name>\w+): begin -->\n(?P<text>.*?)<!-- yubihsm (?P=name): end -->", re.DOTALL)


def parts() -> Mapping[str, str]:
    """What the code says now."""
    return {"setup": _setup(), "keys": _keys()}


def written() -> Mapping[str, str]:
    """What the page says."""
    return {found["name"]: found["text"] for found in _MARKED.finditer(PAGE.read_text())}


def _setup() -> str:
    lines = setup.commands(parse_uri("yubihsm:http://127.0.0.1:12345?auth-key=2"))
    return f"```\n{lines}```\n"


def _keys() -> str:
    rows = ["| key | object | capabilities |", "|---|---|---|"]
    for spec, kind in KINDS.items():
        may = " ".join(capability_names(kind.capabilities)) or "none"
        algorithm = kind.algorithm.name.lower().replace("_", "-")
        rows.append(f"| {spec.algorithm.value}, {spec.purpose.value} | {algorithm} | {may} |")
    return "\n".join(rows) + "\n"


def write() -> None:
    fresh = parts()

    def renewed(found: re.Match[str]) -> str:
        name = found["name"]
        return f"<!-- yubihsm {name}: begin -->\n{fresh[name]}<!-- yubihsm {name}: end -->"

    PAGE.write_text(_MARKED.sub(renewed, PAGE.read_text()))


if __name__ == "__main__":
    write()
