"""A start where something is missing: each starts or refuses by the rule of docs/threat-model.md, and says what is
missing and how to grant it. Kernels without a feature are made by a seccomp filter around the real daemon."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import pytest

from openk_memory.environment import worker_environment
from tests.support.daemon import copy_template, template
from tests.support.lacking import ENOSYS, EPERM, Denied, start
from tests.support.tokens import URI

__all__ = ["template"]

POLICIES: Final = Path(__file__).parents[2] / "policies"
MISCONFIGURED = 78
NOBODY = 65534
DAEMON, WORKER = "openk_daemon", "openk_hsm"
AF_NETLINK, EAFNOSUPPORT = 16, 97
PRCTL_DUMPABLE = ["prctl", EPERM, 0, 4]
PRCTL_NEW_PRIVS = ["prctl", EPERM, 0, 38]
PRCTL_SECCOMP = ["prctl", EPERM, 0, 22]
PRCTL_AMBIENT = ["prctl", EPERM, 0, 47]
PRCTL_BOUNDING = [["prctl", EPERM, 0, 23], ["prctl", EPERM, 0, 24]]


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


def worker(folder: Path, template: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of a worker on a token of its own, as its unit would start it."""
    token = copy_template(template, folder / "token")
    arguments = ["serve", "--uri", URI, "--pin-file", str(token / "pin"), "--socket", str(folder / "hsm.sock")]
    arguments += ["--ready-fd", "1"]
    return arguments, worker_environment({"SOFTHSM2_CONF": str(token / "softhsm2.conf")})


REFUSES = str(MISCONFIGURED)
SECRETLESS = "locked memory can be read by root through /proc/PID/mem, because "
PROFILE = "in the seccomp profile of the container or unit"
NO_LANDLOCK = (
    "Operation not permitted: allow landlock_create_ruleset, landlock_add_rule and landlock_restrict_self " + PROFILE
)
NO_SECCOMP = (
    f"the kernel refused the seccomp filter: allow seccomp and prctl(PR_SET_SECCOMP) {PROFILE}; the kernel needs "
    "CONFIG_SECCOMP_FILTER"
)
NO_DUMPABLE = (
    f"not-dumpable: Operation not permitted: allow prctl(PR_SET_DUMPABLE) {PROFILE}; without it every program of this "
    "user can read this process's memory"
)
NO_EVENTS = (
    "a tracer that comes and goes within a tenth of a second is not noticed without the kernel's process events: they want "
    "Linux 6.6, AF_NETLINK sockets, and the host's network, pid and user namespaces"
)

CASES: dict[str, tuple[Denied, str, str, str, str]] = {
    "as it should be": ([], "waits", "waits", "", ""),
    "no memfd_secret": (
        [["memfd_secret", ENOSYS, None, 0]], "waits", "waits", "memory.kind",
        SECRETLESS + "this kernel has no memfd_secret: Linux 5.14, before 6.5 with the boot option secretmem.enable=1",
    ),
    "memfd_secret denied": (
        [["memfd_secret", EPERM, None, 0]], "waits", "waits", "memory.kind",
        SECRETLESS + f"memfd_secret is denied (Operation not permitted): allow it {PROFILE}",
    ),
    "no Landlock": (
        [["landlock_create_ruleset", ENOSYS, None, 0]], "waits", "waits", "hardening.missing",
        "this kernel has no Landlock (Linux 5.13 and the boot option lsm=landlock)",
    ),
    "Landlock denied": (
        [["landlock_restrict_self", EPERM, None, 0]], "waits", "waits", "hardening.missing",
        NO_LANDLOCK,
    ),
    "no seccomp": (
        [["seccomp", EPERM, None, 0], PRCTL_SECCOMP], REFUSES, "waits", "hardening.missing",
        NO_SECCOMP,
    ),
    "prctl(PR_SET_DUMPABLE) filtered": (
        [PRCTL_DUMPABLE], REFUSES, REFUSES, "",
        NO_DUMPABLE,
    ),
    "prctl(PR_SET_NO_NEW_PRIVS) filtered": (
        [PRCTL_NEW_PRIVS], REFUSES, REFUSES, "",
        f"no-new-privs: Operation not permitted: allow prctl(PR_SET_NO_NEW_PRIVS) {PROFILE}",
    ),
    "prctl of the bounding set filtered": (
        PRCTL_BOUNDING, "waits", "waits", "hardening.missing",
        f"Operation not permitted: allow prctl(PR_CAPBSET_READ) and prctl(PR_CAPBSET_DROP) {PROFILE}",
    ),
    "prctl(PR_CAP_AMBIENT) filtered": (
        [PRCTL_AMBIENT], REFUSES, REFUSES, "",
        f"capabilities: Operation not permitted: allow capget, capset and prctl(PR_CAP_AMBIENT) {PROFILE}",
    ),
    "every prctl filtered": (
        [["prctl", EPERM, None, 0]], REFUSES, REFUSES, "",
        NO_DUMPABLE,
    ),
    "capset filtered": (
        [["capset", EPERM, None, 0]], REFUSES, REFUSES, "",
        f"capabilities: Operation not permitted: allow capget, capset and prctl(PR_CAP_AMBIENT) {PROFILE}",
    ),
    "no netlink sockets": (
        [["socket", EAFNOSUPPORT, 0, AF_NETLINK]], "waits", "waits", "hardening.missing",
        f"Address family not supported by protocol: {NO_EVENTS}",
    ),
    "limits cannot be read": (
        [["prlimit64", EPERM, None, 0], ["getrlimit", EPERM, None, 0]], REFUSES, REFUSES, "",
        f"limits of the process cannot be read (Operation not permitted): allow prlimit64 {PROFILE}",
    ),
}  # fmt: skip
"""What is denied; what the daemon does, what a worker does; the event, and the whole of what is said."""


@pytest.mark.parametrize("process", [DAEMON, WORKER])
@pytest.mark.parametrize("name", CASES)
def test_a_kernel_that_lacks_something(name: str, process: str, template: Path, tmp_path: Path) -> None:
    denied, *ends, event, text = CASES[name]
    end = ends[process == WORKER]
    arguments, environment = worker(tmp_path, template) if process == WORKER else (configured(tmp_path), {})
    with start(tmp_path, process, *arguments, denied=denied, **environment) as started:
        assert started.settled() == end, started.log
        told = started.said("not.started" if end == REFUSES else event)
        if text:
            said = {str(line.get("text", line.get("detail"))).removeprefix("seccomp: ") for line in told}
            assert text in said, started.log
        else:
            assert not any(started.said(event) for event in ("hardening.missing", "memory.kind", "not.started"))


@pytest.mark.parametrize("process", [DAEMON, WORKER])
def test_a_memory_limit_that_is_too_low(process: str, template: Path, tmp_path: Path) -> None:
    """Told before anything is opened, with the number to grant."""
    arguments, environment = worker(tmp_path, template) if process == WORKER else (configured(tmp_path), {})
    needed = (1 << 20) + (256 << 10) + (5 << 20 if process == DAEMON else 0)  # a region, a little besides, the pool
    with start(tmp_path, process, *arguments, limit=1 << 20, **environment) as started:
        assert started.settled() == REFUSES, started.log
        (told,) = started.said("not.started")
        assert told["text"] == (
            f"cannot lock {needed} bytes of memory: RLIMIT_MEMLOCK is 1048576 bytes and 0 are locked already, so it must be "
            f"at least {needed}. Grant it with LimitMEMLOCK={needed} in the systemd unit, with `ulimit -l {needed >> 10}` in "
            "the shell that starts the process (raising the hard limit in /etc/security/limits.conf first if it is lower), "
            f"or with --ulimit memlock={needed} of a container."
        )
        assert not list(tmp_path.glob("*.sock"))


def test_a_memory_limit_that_the_configuration_fits(tmp_path: Path) -> None:
    memory = "[limits]\nlocked_memory_bytes = 1_048_576\nlocked_memory_per_uid_bytes = 1_048_576\n"
    with start(tmp_path, DAEMON, *configured(tmp_path, memory=memory), limit=3 << 20) as started:
        assert started.settled() == "waits", started.log


def test_a_worker_whose_freed_memory_is_not_overwritten_says_so(template: Path, tmp_path: Path) -> None:
    arguments, environment = worker(tmp_path, template)
    environment.update(PYTHONMALLOC="default", GLIBC_TUNABLES="")
    with start(tmp_path, WORKER, *arguments, **environment) as started:
        assert started.settled() == "waits", started.log
        (told,) = started.said("hardening.missing")
        assert told["detail"] == (
            "freed memory is not overwritten: start it with GLIBC_TUNABLES=glibc.malloc.perturb=165:"
            "glibc.malloc.tcache_count=0 PYTHONMALLOC=malloc in its environment, as the units do"
        )


def test_a_worker_as_root_says_so(template: Path, tmp_path: Path) -> None:
    arguments, environment = worker(tmp_path, template)
    with start(tmp_path, WORKER, *arguments, root=True, **environment) as started:
        assert started.settled() == "waits", started.log
        (told,) = started.said("user.root")
        assert told["text"] == (
            "openk-hsm runs as root: any flaw in the vendor's module is root's. Give it a user of its own: User= of the "
            "unit (openk-hsm@.service has one), or setpriv --reuid=openk-hsm --regid=openk-hsm --init-groups"
        )


def test_root_without_a_service_user_is_refused(tmp_path: Path) -> None:
    with start(tmp_path, DAEMON, *configured(tmp_path, user=""), root=True) as started:
        assert started.settled() == str(MISCONFIGURED)
        assert 'add `user = \\"openkd\\"`' in started.log
        assert "User=" in started.log


def test_a_service_user_that_is_not_there(tmp_path: Path) -> None:
    with start(tmp_path, DAEMON, *configured(tmp_path, user='user = "no-such-user"'), root=True) as started:
        assert started.settled() == str(MISCONFIGURED)
        assert "no-such-user" in started.log


def test_root_on_purpose_is_said(tmp_path: Path) -> None:
    with start(tmp_path, DAEMON, *configured(tmp_path), root=True) as started:
        assert started.settled() == "waits"
        assert "openkd runs as root, as configured" in started.log


def test_it_becomes_its_service_user(tmp_path: Path) -> None:
    assert os.geteuid() == 0, "only root can become somebody else"
    arguments = configured(tmp_path, user='user = "nobody"')
    for path in (tmp_path, tmp_path / "state"):
        os.chown(path, NOBODY, NOBODY)
    for parent in [tmp_path, *list(tmp_path.parents)[:2]]:
        parent.chmod(parent.stat().st_mode | 0o011)
    with start(tmp_path, DAEMON, *arguments) as started:
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
    with start(tmp_path, DAEMON, *dev(tmp_path), OPENSSL_MODULES="/nowhere") as started:
        assert started.settled() == "waits"
        assert "measure=environment" in started.log
        assert "OPENSSL_MODULES" in started.log
