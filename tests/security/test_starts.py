"""A start where something is missing: each starts or refuses by the rule of docs/threat-model.md, and says what is
missing and how to grant it. Kernels without a feature are made by a seccomp filter around the real daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

POLICIES: Final = Path(__file__).parents[2] / "policies"
MISCONFIGURED = 78
NOBODY = 65534

WRAPPED = """
import json, os, resource, sys
from openk_memory import seccomp
library = seccomp.library()
context = library.seccomp_init(seccomp.ALLOW)
denied, limit = json.loads(sys.argv[1])
if limit is not None:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
for name, error, argument, value in denied:
    compare = None if argument is None else seccomp._Compare(argument, seccomp.MASKED_EQUAL, 0xFFFFFFFF, value)
    assert seccomp._deny(context, name, error, compare), name
assert library.seccomp_load(context) == 0
os.execv(sys.executable, [sys.executable, "-m", "openk_daemon", *sys.argv[2:]])
"""
"""The daemon on a kernel, or in a container, that answers some calls with an error: [call, errno, argument, value]."""

ENOSYS, EPERM = 38, 1
PRCTL_DUMPABLE = ["prctl", EPERM, 0, 4]
PRCTL_NEW_PRIVS = ["prctl", EPERM, 0, 38]
PRCTL_SECCOMP = ["prctl", EPERM, 0, 22]


class Start:
    """A daemon that is starting; it has no worker, so a start that goes well ends in waiting for one."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self.process = process
        self._log_file = log_file

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    def settled(self) -> str:
        """ "waits" or the exit status."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            status = self.process.poll()
            if status is not None:
                return str(status)
            if "hsm.awaited" in self.log or "hsm.worker.not.there" in self.log:
                return "waits"
            time.sleep(0.02)
        raise AssertionError(self.log)


@contextmanager
def start(
    folder: Path, *arguments: str, denied: object = (), limit: int | None = None, root: bool = False, **environment: str
) -> Generator[Start]:
    """`denied`: see WRAPPED. `limit`: RLIMIT_MEMLOCK, bytes. `root`: as root, in a user namespace where it must be."""

    become = ["unshare", "--user", "--map-root-user"] if root and os.geteuid() else []
    command = [*become, sys.executable, "-c", WRAPPED, json.dumps([denied, limit]), *arguments]
    log_file = folder / "start.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
        )
    try:
        yield Start(process, log_file)
    finally:
        process.kill()
        process.wait()


def dev(folder: Path) -> list[str]:
    return ["--dev", str(folder / "dev"), "--supervised"]


def configured(folder: Path, user: str = 'user = "root"', memory: str = "") -> list[str]:
    (folder / "state").mkdir(mode=0o700)
    shutil.copytree(POLICIES, folder / "policies")
    config = folder / "openkd.toml"
    config.write_text(
        f'state = "{folder}/state"\npolicies = "{folder}/policies"\nadministrators = [{os.getuid()}]\n{user}\n'
        f'[hsm.main]\nsockets = ["{folder}/hsm.sock"]\n[socket]\npath = "{folder}/openkd.sock"\nmode = 0o600\n{memory}'
    )
    return ["--config", str(config)]


CASES: dict[str, tuple[object, str, tuple[str, ...]]] = {
    "as it should be": ([], "waits", ()),
    "no memfd_secret": ([["memfd_secret", ENOSYS, None, 0]], "waits", ("memory.kind", "Linux 5.14", "secretmem.enable=1")),
    "memfd_secret denied": ([["memfd_secret", EPERM, None, 0]], "waits", ("memory.kind", "seccomp profile")),
    "no Landlock": ([["landlock_create_ruleset", ENOSYS, None, 0]], "waits", ("measure=landlock", "Linux 5.13", "lsm=landlock")),
    "no seccomp": (
        [["seccomp", EPERM, None, 0], PRCTL_SECCOMP], str(MISCONFIGURED), ("seccomp", "refused the seccomp filter"),
    ),
    "prctl(PR_SET_DUMPABLE) filtered": ([PRCTL_DUMPABLE], str(MISCONFIGURED), ("not-dumpable", "allow prctl(PR_SET_DUMPABLE)")),
    "prctl(PR_SET_NO_NEW_PRIVS) filtered": (
        [PRCTL_NEW_PRIVS], str(MISCONFIGURED), ("no-new-privs", "allow prctl(PR_SET_NO_NEW_PRIVS)"),
    ),
    "capset filtered": ([["capset", EPERM, None, 0]], str(MISCONFIGURED), ("capabilities", "allow capget and capset")),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_that_lacks_something(name: str, tmp_path: Path) -> None:
    denied, end, texts = CASES[name]
    with start(tmp_path, *dev(tmp_path), denied=denied) as started:
        assert started.settled() == end, started.log
        for text in texts:
            assert text in started.log, started.log
        if not texts:
            missing = [line for line in started.log.splitlines() if "hardening.missing" in line]
            assert [line for line in missing if "measure=environment" not in line] == []


def test_a_memory_limit_that_is_too_low(tmp_path: Path) -> None:
    """Told before anything is opened, with the number to grant."""
    with start(tmp_path, *configured(tmp_path), limit=1 << 20) as started:
        granted = has_capability(24)  # CAP_SYS_RESOURCE: it raises the limit itself
        assert started.settled() == ("waits" if granted else str(MISCONFIGURED)), started.log
        if not granted:
            assert "LimitMEMLOCK=6553600" in started.log  # pool 5 MiB, one region 1 MiB, 256 KiB besides
            assert not (tmp_path / "openkd.sock").exists()


def test_a_memory_limit_that_the_configuration_fits(tmp_path: Path) -> None:
    memory = "[limits]\nlocked_memory_bytes = 1_048_576\nlocked_memory_per_uid_bytes = 1_048_576\n"
    with start(tmp_path, *configured(tmp_path, memory=memory), limit=3 << 20) as started:
        assert started.settled() == "waits", started.log


def has_capability(number: int) -> bool:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return bool(int(status["CapEff"], 16) >> number & 1)


def test_root_without_a_service_user_is_refused(tmp_path: Path) -> None:
    with start(tmp_path, *configured(tmp_path, user=""), root=True) as started:
        assert started.settled() == str(MISCONFIGURED)
        assert 'add `user = \\"openkd\\"`' in started.log
        assert "User=" in started.log


def test_a_service_user_that_is_not_there(tmp_path: Path) -> None:
    with start(tmp_path, *configured(tmp_path, user='user = "no-such-user"'), root=True) as started:
        assert started.settled() == str(MISCONFIGURED)
        assert "no-such-user" in started.log


def test_root_on_purpose_is_said(tmp_path: Path) -> None:
    with start(tmp_path, *configured(tmp_path), root=True) as started:
        assert started.settled() == "waits"
        assert "openkd runs as root, as configured" in started.log


def test_it_becomes_its_service_user(tmp_path: Path) -> None:
    assert os.geteuid() == 0, "only root can become somebody else"
    arguments = configured(tmp_path, user='user = "nobody"')
    for path in (tmp_path, tmp_path / "state"):
        os.chown(path, NOBODY, NOBODY)
    for parent in [tmp_path, *list(tmp_path.parents)[:2]]:
        parent.chmod(parent.stat().st_mode | 0o011)
    with start(tmp_path, *arguments) as started:
        seen: set[int] = set()
        while started.process.poll() is None and NOBODY not in seen:
            seen |= real_uids(started.process.pid)
        # Where the interpreter lies below /root, nobody cannot go on importing: it has become nobody all the same.
        assert NOBODY in seen or '"name": "nobody"' in started.log, started.log


def real_uids(pid: int) -> set[int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return set()
    return {int(uid) for line in lines if line.startswith("Uid:") for uid in line.split()[1:]}


def test_an_environment_that_brings_code_is_told(tmp_path: Path) -> None:
    with start(tmp_path, *dev(tmp_path), OPENSSL_MODULES="/nowhere") as started:
        assert started.settled() == "waits"
        assert "measure=environment" in started.log
        assert "OPENSSL_MODULES" in started.log
