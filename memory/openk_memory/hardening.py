"""What a process does to itself before it starts threads, opens its sockets to others and touches a secret.

    uid already dropped ─▶ no threads? no tracer? ─▶ umask, core limit, dumpable, NO_NEW_PRIVS ─▶ capabilities
                                                                              ─▶ Landlock ─▶ seccomp ─▶ threads, trio

The order matters: setuid(2) and execve(2) reset the dumpable flag, Landlock and seccomp hold only for threads started
later, and the seccomp filter comes last because it can take nothing back. Import everything before, trio above all:
its first import asks `ldconfig` and a compiler where the thread library is, which is denied afterwards.

The rule for what cannot be applied: a measure that is not in `tolerate` makes the process refuse to start
(HardeningRefused, with the whole report); one that is in `tolerate` is reported as MISSING with the reason, and the
caller logs it. Nothing is skipped silently: each measure has one line in the report.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Final, Literal

from openk_memory import capabilities, landlock, seccomp
from openk_memory.capabilities import Capability
from openk_memory.errors import LockedMemoryError, Unsupported
from openk_memory.kernel import failure, libc
from openk_memory.landlock import Confinement
from openk_memory.limits import set_limit

PR_GET_DUMPABLE: Final = 3
PR_SET_DUMPABLE: Final = 4
PR_SET_NO_NEW_PRIVS: Final = 38


class Measure(StrEnum):
    SINGLE_THREAD = "single-thread"
    NO_TRACER = "no-tracer"
    TRACER_EVENTS = "tracer-events"  # asked for by who listens (openk_memory.tracers), not by harden_*
    UMASK = "umask"
    NO_CORE = "no-core"
    NOT_DUMPABLE = "not-dumpable"
    NO_NEW_PRIVS = "no-new-privs"
    BOUNDING = "capability-bounding-set"
    CAPABILITIES = "capabilities"
    ENVIRONMENT = "environment"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"


class State(StrEnum):
    APPLIED = "applied"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Step:
    measure: Measure
    state: State
    detail: str
    """What exactly was applied, or why it is missing and what would help."""

    @property
    def level(self) -> Literal["info", "warning"]:
        """How loudly to tell that it is missing: of what only adds to another measure, and is never there under the
        shipped units, not as of trouble."""
        return "info" if self.measure is Measure.TRACER_EVENTS else "warning"


@dataclass(frozen=True, slots=True)
class Report:
    steps: tuple[Step, ...]

    @property
    def missing(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.state is State.MISSING)

    def __str__(self) -> str:
        return "\n".join(f"{step.measure}: {step.state}: {step.detail}" for step in self.steps)


class HardeningRefused(LockedMemoryError):
    """A measure that must hold could not be applied: the process must not go on. `report` has every step taken."""

    def __init__(self, report: Report, tolerate: frozenset[Measure]) -> None:
        self.report = report
        self.faults = tuple(step for step in report.missing if step.measure not in tolerate)
        super().__init__("; ".join(f"{step.measure}: {step.detail}" for step in self.faults))


TOLERATED: Final = frozenset({Measure.BOUNDING, Measure.LANDLOCK, Measure.ENVIRONMENT})
"""By default: the bounding set cannot be emptied without CAP_SETPCAP (and is harmless under NO_NEW_PRIVS), kernels
before 5.13 have no Landlock, and what the environment made the loader do is done. Everything else exists on every
kernel and distribution that openk supports."""

_PROFILE: Final = "in the seccomp profile of the container or unit"
REMEDIES: Final[dict[Measure, str]] = {
    Measure.NO_CORE: f"allow setrlimit and prlimit64 {_PROFILE}",
    Measure.NOT_DUMPABLE: f"allow prctl(PR_SET_DUMPABLE) {_PROFILE}; without it every program of this user can read "
    "this process's memory",
    Measure.NO_NEW_PRIVS: f"allow prctl(PR_SET_NO_NEW_PRIVS) {_PROFILE}",
    Measure.BOUNDING: f"allow prctl(PR_CAPBSET_READ) and prctl(PR_CAPBSET_DROP) {_PROFILE}",
    Measure.CAPABILITIES: f"allow capget, capset and prctl(PR_CAP_AMBIENT) {_PROFILE}",
    Measure.LANDLOCK: f"allow landlock_create_ruleset, landlock_add_rule and landlock_restrict_self {_PROFILE}",
    Measure.SECCOMP: f"allow seccomp and prctl(PR_SET_SECCOMP) {_PROFILE}; the kernel needs CONFIG_SECCOMP_FILTER",
}
"""What to do where the kernel refuses a measure; where openk itself finds something missing, it says so there."""

INJECTING: Final = frozenset({
    *("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "LD_ORIGIN_PATH", "GCONV_PATH"),
    *("OPENSSL_CONF", "OPENSSL_MODULES", "OPENSSL_ENGINES"),
    *("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT", "PYTHONPLATLIBDIR"),
})  # fmt: skip
"""Variables by which whoever starts a process runs code in it."""
KEPT: Final = frozenset({
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TERM", "INVOCATION_ID", "JOURNAL_STREAM"),
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY"),
    *("STATE_DIRECTORY", "RUNTIME_DIRECTORY"),
})  # fmt: skip
"""What of its environment a daemon keeps; LC_* too."""

Act = Callable[[], str]


def harden_daemon(
    confinement: Confinement,
    *,
    keep: Iterable[Capability] = (),
    tolerate: frozenset[Measure] = TOLERATED,
) -> Report:
    """All measures for `openkd`. Call it with one thread, after dropping the uid, after everything that needs paths
    outside `confinement`, and after the last import of an extension module: no code can be loaded any more, and so no
    vendor's. Raises HardeningRefused; the process must then exit."""
    return _harden(confinement, frozenset(keep), tolerate, code=False, environment=lambda: seal_environment(KEPT))


def harden_worker(
    confinement: Confinement | None,
    *,
    keep: Iterable[Capability] = (),
    tolerate: frozenset[Measure] = TOLERATED,
    children: bool = False,
) -> Report:
    """The same for `openk-hsm`, after the vendor module is loaded. `confinement` None: the module's needs are not
    known (an HSM with its own daemon, USB, a network); reported as missing. `children`: the module starts processes."""
    return _harden(
        confinement, frozenset(keep), tolerate, children=children, environment=lambda: seal_environment(None)
    )


def _harden(
    confinement: Confinement | None,
    keep: frozenset[Capability],
    tolerate: frozenset[Measure],
    *,
    environment: Act,
    children: bool = False,
    code: bool = True,
) -> Report:
    acts: tuple[tuple[Measure, Act], ...] = (
        (Measure.SINGLE_THREAD, check_single_thread),
        (Measure.NO_TRACER, check_tracer),
        (Measure.UMASK, set_umask),
        (Measure.NO_CORE, forbid_core),
        (Measure.NOT_DUMPABLE, forbid_dumps),
        (Measure.NO_NEW_PRIVS, forbid_new_privileges),
        (Measure.BOUNDING, lambda: drop_bounding(keep)),
        (Measure.CAPABILITIES, lambda: drop_capabilities(keep)),
        (Measure.ENVIRONMENT, environment),
        (Measure.LANDLOCK, lambda: confine(confinement)),
        (Measure.SECCOMP, lambda: deny_calls(children=children, code=code)),
    )
    attempt(Measure.SECCOMP, preload)  # its library may be out of reach once Landlock holds; failures come back below
    steps: list[Step] = []
    for measure, act in acts:
        steps.append(attempt(measure, act))
        if steps[-1].state is State.MISSING and measure not in tolerate:
            raise HardeningRefused(Report(tuple(steps)), tolerate)
    return Report(tuple(steps))


def attempt(measure: Measure, act: Act) -> Step:
    """One measure, its outcome as a value."""
    try:
        return Step(measure, State.APPLIED, act())
    except Unsupported as error:
        return Step(measure, State.MISSING, str(error))
    except OSError as error:
        remedy = REMEDIES.get(measure)
        return Step(measure, State.MISSING, f"{error.strerror}: {remedy}" if remedy else str(error))


# --- the measures: each applies itself and says what it did; OSError or Unsupported says why it could not ---


def check_single_thread() -> str:
    """Landlock, seccomp and capabilities are per thread: a thread that runs already would stay free."""
    count = len(os.listdir("/proc/self/task"))
    if count != 1:
        raise Unsupported(f"{count} threads run already; hardening comes before the first one")
    return "one thread"


def tracer() -> int:
    """The process id of whoever traces this process (proc_pid_status(5), TracerPid), 0 for nobody. For periodic use."""
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("TracerPid:"))


def check_tracer() -> str:
    if found := tracer():
        raise Unsupported(f"process {found} traces this process and can read its memory and registers")
    return "nobody traces this process"


def set_umask() -> str:
    """077: files of the process are its own; sockets get their wider mode explicitly."""
    os.umask(0o077)
    return "077"


def forbid_core() -> str:
    """RLIMIT_CORE 0, hard and soft. It does not stop a core_pattern that pipes to a program; `forbid_dumps` does."""
    if not set_limit(resource.RLIMIT_CORE, 0, 0):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return "RLIMIT_CORE 0"


def forbid_dumps() -> str:
    """PR_SET_DUMPABLE 0: no core of any kind; ptrace and /proc/PID/mem only for root (prctl(2))."""
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise failure()
    if libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise Unsupported("the kernel did not keep PR_SET_DUMPABLE 0")
    return "PR_SET_DUMPABLE 0"


def forbid_new_privileges() -> str:
    """PR_SET_NO_NEW_PRIVS: no setuid program helps; also what lets an unprivileged process load filters."""
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise failure()
    return "PR_SET_NO_NEW_PRIVS 1"


def drop_bounding(keep: frozenset[Capability] = frozenset()) -> str:
    if not capabilities.bounding_is_empty(keep):
        try:
            capabilities.drop_bounding(keep)
        except PermissionError:
            raise Unsupported("needs CAP_SETPCAP; under systemd CapabilityBoundingSet= does it") from None
    return f"only {_names(keep)}"


def drop_capabilities(keep: frozenset[Capability] = frozenset()) -> str:
    capabilities.drop_all_but(keep)
    return f"only {_names(keep)}"


def seal_environment(keep: frozenset[str] | None) -> str:
    """Forget all but `keep` and LC_* (None: leave it, a vendor's module reads it), so that nothing read later can be
    steered by it. Raises Unsupported, after forgetting, for variables by which code was brought in at the start."""
    injecting = sorted(INJECTING & set(os.environ))
    forgotten = 0
    for name in list(os.environ) if keep is not None else ():
        if keep is not None and name not in keep and not name.startswith("LC_"):
            del os.environ[name]
            forgotten += 1
    if injecting:
        names = ", ".join(injecting)
        raise Unsupported(f"{names} set: whoever set that runs code in here; start it without, as the units do")
    return f"{forgotten} variables forgotten"


def confine(confinement: Confinement | None) -> str:
    if confinement is None:
        raise Unsupported(
            "what the vendor's module must reach is not known: name it with --reach-read and --reach-write, and the "
            "rest of the file system is closed to it; until then only the unit confines it"
        )
    version = landlock.restrict(confinement)
    scope = "" if version >= 6 or not confinement.scope else ", without scopes for signals and abstract sockets (ABI 6)"
    return f"ABI {version}, {len(confinement.read)} paths to read, {len(confinement.write)} to write{scope}"


def preload() -> str:
    """Load what the later measures need from paths that the earlier ones may close."""
    seccomp.library()
    for late in ("unicodedata", "_queue"):  # Python imports these when it needs them first
        import_module(late)
    try:
        ctypes.CDLL("libgcc_s.so.1")  # the C library loads it when a thread is cancelled
    except OSError:
        return "libseccomp loaded, libgcc_s not there"
    return "libseccomp loaded"


def deny_calls(*, children: bool = False, code: bool = True) -> str:
    """`children`, `code`: whether new processes and newly loaded libraries stay possible."""
    unknown = seccomp.load_deny_list(forbid_children=not children, forbid_code=not code)
    note = f"; unknown to this libseccomp: {', '.join(unknown)}" if unknown else ""
    more = ("" if children else ", and new processes") + ("" if code else ", and new code")
    return f"{len(seccomp.DENIED) - len(unknown)} calls denied{more}{note}"


def _names(keep: frozenset[Capability]) -> str:
    return ", ".join(sorted(f"CAP_{capability.name}" for capability in keep)) or "none"
