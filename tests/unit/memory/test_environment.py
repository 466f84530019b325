from __future__ import annotations

import os
import subprocess
import sys

import pytest

from openk_memory.environment import FLAGS, WORKER, missing, worker_environment


def test_every_variable_has_a_reason() -> None:
    assert {variable.name for variable in WORKER} == {"GLIBC_TUNABLES", "PYTHONMALLOC"}
    assert all(len(variable.reason) > 40 for variable in WORKER)


def test_the_recipe_is_complete_and_keeps_the_rest() -> None:
    made = worker_environment({"PATH": "/bin", "GLIBC_TUNABLES": "glibc.malloc.check=1:glibc.malloc.perturb=1"})
    assert made["PATH"] == "/bin"
    assert made["GLIBC_TUNABLES"] == "glibc.malloc.check=1:glibc.malloc.perturb=165:glibc.malloc.tcache_count=0"
    assert missing(made) == ()
    assert worker_environment(made) == made


@pytest.mark.parametrize("name", [variable.name for variable in WORKER])
def test_what_is_missing_is_named(name: str) -> None:
    made = worker_environment({})
    made[name] = "glibc.malloc.perturb=165"
    assert [variable.name for variable in missing(made)] == [name]
    del made[name]
    assert [variable.name for variable in missing(made)] == [name]


CODE = """
import ctypes, sys
block = bytes(range(200, 240)) * 20    # 800 bytes: a heap block with a recognisable content
address = id(block) + 32               # where CPython keeps the bytes
found = ctypes.string_at(address + 64, 400) == block[64:464]
assert found
del block
left = ctypes.string_at(address + 64, 400)
print(any(left[at:at + 8] == bytes(range(200, 240))[(at + 64) % 40:][:8] for at in range(0, 400, 40)))
"""


@pytest.mark.parametrize(("recipe", "leaks"), [(False, "True"), (True, "False")])
def test_freed_blocks_are_overwritten_in_a_worker(recipe: bool, leaks: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONMALLOC", "GLIBC_TUNABLES")}
    if recipe:
        environment = worker_environment(environment)
    done = subprocess.run(
        [sys.executable, *FLAGS, "-c", CODE], env=environment, capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.strip() == leaks
