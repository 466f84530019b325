"""A systemd of our own to run the shipped units in, and how to speak with it."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "systemd"
BIN = Path(sys.executable).parent


class Host:
    """Context manager. `systemctl` and `run` act inside; leaving kills everything in there."""

    def __init__(self, folder: Path, files: Mapping[str, str], commands: Sequence[Sequence[str]]) -> None:
        self.console = folder / "console.log"
        self._plan = json.dumps({
            "target": "openk-test.target",
            "files": {**files, "/run/systemd/system/openk-test.target": "[Unit]\nDescription=test\nDefaultDependencies=no\n"},
            "commands": [list(command) for command in commands],
            "reachable": sorted({str(ROOT), str(Path(sys.base_prefix).resolve()), str(Path(sys.prefix).resolve())}),
        })  # fmt: skip

    def __enter__(self) -> "Host":
        with self.console.open("wb") as console:
            self._unshare = subprocess.Popen(
                ["unshare", "--pid", "--fork", "--mount", "--cgroup", "--uts", "--ipc", "--kill-child",
                 sys.executable, "-B", str(Path(__file__).with_name("boot.py"))],
                stdin=subprocess.PIPE, stdout=console, stderr=console,
            )  # fmt: skip
        assert self._unshare.stdin is not None
        self._unshare.stdin.write(self._plan.encode())
        self._unshare.stdin.close()
        self.wait(self._init_is_systemd, 20, "systemd to boot")
        self.wait(lambda: self.run("systemctl", "is-active", "openk-test.target", check=False).strip() == "active", 20, "the target")
        self.start("systemd-journald.service")
        return self

    def __exit__(self, *_: object) -> None:
        self._unshare.kill()
        self._unshare.wait()

    def _init_is_systemd(self) -> bool:
        assert self._unshare.poll() is None, self.console.read_text()
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        self._init = children[0] if children else ""
        return bool(children) and Path(f"/proc/{self._init}/comm").read_text().strip() == "systemd"

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside, as root; its output."""
        result = self._inside(*command)
        if check:
            assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}\n{self.story()}"
        return result.stdout + ("" if result.returncode == 0 else result.stderr)

    def _inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", "--target", self._init, "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--", *command],
            capture_output=True, text=True, timeout=60, check=False,
            env={"PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_PAGER": ""},
        )  # fmt: skip

    def show(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()

    def start(self, unit: str) -> None:
        self.run("systemctl", "start", unit)

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"waited {seconds} s for {what}\n{self.story()}"
            time.sleep(0.05)

    def journal(self, *matches: str) -> list[dict[str, str]]:
        """Entries of journald, oldest first: journalctl's own fields (systemd.journal-fields(7))."""
        return [json.loads(line) for line in self.run("journalctl", "--no-pager", "-o", "json", *matches).splitlines()]

    def story(self) -> str:
        """The end of what systemd and its services said."""
        said = self._inside("systemctl", "status", "--no-pager", "--lines=0", "openkd.service", "openk-hsm@*")
        services = self._inside("journalctl", "--no-pager", "-n", "60", "-o", "cat")
        console = "\n".join(self.console.read_text(errors="replace").splitlines()[-20:])
        return f"{said.stdout}\n{services.stdout}\n{console}"


def shipped_files() -> dict[str, str]:
    """The shipped units where a packager would put them."""
    files = {f"/run/systemd/system/{name}": (UNITS / name).read_text() for name in ("openkd.service", "openkd.socket", "openk-hsm@.service", "openk-alerts.service")}
    files["/run/sysusers.d/openk.conf"] = (UNITS / "openk.sysusers").read_text()
    files["/run/tmpfiles.d/openk.conf"] = (UNITS / "openk.tmpfiles").read_text()
    # A journald of its own that keeps everything in memory and leaves the kernel's log and auditing alone.
    files["/run/systemd/journald.conf.d/test.conf"] = "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRateLimitIntervalSec=0\n"
    files["/run/systemd/system/systemd-journald-audit.socket"] = ""  # masked
    return files


def path_drop_in(commands: Mapping[str, str]) -> str:
    """A drop-in that changes paths and nothing else: where the program is, where code may be mapped from."""
    code = " ".join(f'"{path}"' for path in sorted({str(ROOT), str(Path(sys.base_prefix).resolve()), sys.prefix}))
    home = any(path.startswith(("/root", "/home")) for path in (str(ROOT), str(Path(sys.base_prefix).resolve())))
    lines = ["[Unit]", "DefaultDependencies=no", "[Service]", f"ExecPaths={code}"]
    if home:  # this interpreter lives in someone's home; /opt/openk does not
        lines.append("ProtectHome=read-only")
    if str(ROOT).startswith(("/tmp/", "/var/tmp/")):  # a checkout where PrivateTmp= hides it; /opt/openk is not
        lines.append(f'BindReadOnlyPaths="{ROOT}"')
    for key, value in commands.items():
        lines += [f"{key}=", f"{key}={value}"]
    return "\n".join([*lines, ""])
