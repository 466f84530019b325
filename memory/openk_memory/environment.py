"""The environment of a worker process: settings that must be there before its first instruction.

A vendor library that cannot be fed a buffer (the YubiHSM one, python-pkcs11's `decrypt`) leaves its copies of a
secret in freed heap blocks. glibc can overwrite every block as it is freed, without a line of C, if Python's own
allocator is out of the way. It costs about 16 % of a worker's throughput; the daemon, which has no such library, does
without.

Tried and useless: MALLOC_PERTURB_ alone (the thread cache skips it). `python -I` and `-E` ignore PYTHONMALLOC: a
worker is started with `FLAGS` instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

FLAGS: Final = ("-s", "-P")
"""Interpreter flags of a worker: no user site, no current directory on sys.path; but the environment counts."""


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    value: str
    reason: str


WORKER: Final = (
    Variable(
        "GLIBC_TUNABLES",
        "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0",
        "every block is overwritten when it is freed; without the thread cache, which hands blocks on as they are",
    ),
    Variable(
        "PYTHONMALLOC",
        "malloc",
        "Python's objects come from glibc too; its own arenas would keep freed bytes for ever",
    ),
)


def worker_environment(base: Mapping[str, str]) -> dict[str, str]:
    """`base` with the recipe in place. Tunables of `base` that the recipe does not name are kept."""
    merged = dict(base)
    for variable in WORKER:
        merged[variable.name] = variable.value
    kept = [item for item in base.get("GLIBC_TUNABLES", "").split(":") if item and item not in _items()]
    ours = {item.partition("=")[0] for item in _items()}
    kept = [item for item in kept if item.partition("=")[0] not in ours]
    merged["GLIBC_TUNABLES"] = ":".join([*kept, *_items()])
    return merged


def missing(environ: Mapping[str, str]) -> tuple[Variable, ...]:
    """What of the recipe does not hold in `environ` (of a running process: its os.environ)."""
    present = environ.get("GLIBC_TUNABLES", "").split(":")
    return tuple(
        variable
        for variable in WORKER
        if not (
            all(item in present for item in _items())
            if variable.name == "GLIBC_TUNABLES"
            else environ.get(variable.name) == variable.value
        )
    )


def _items() -> list[str]:
    return WORKER[0].value.split(":")
