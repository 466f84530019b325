"""Runs as root inside fresh namespaces: prepares mounts, then becomes systemd. Arguments: one JSON object (stdin).

    unshare --pid --fork --mount --cgroup --uts --ipc --kill-child python boot.py < plan.json

`plan`: files (path to text, written below the private /etc, /run, /var), reachable (paths that services must be able
to read although a folder above them is closed to others).  The credential folders of systemd stay empty unless `/` is
shared: that is the first mount.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def open_way(paths: list[Path]) -> None:
    """Make `paths` reachable for other users: closed folders above them are covered by open, empty ones into which
    only those paths are bound again."""
    covered: dict[Path, list[Path]] = {}
    for path in paths:
        for parent in reversed(path.parents):
            if not parent.stat().st_mode & stat.S_IXOTH:
                covered.setdefault(parent, []).append(path)
                break
    stage = Path("/run/openk-stage")
    for number, (folder, inside) in enumerate(covered.items()):
        held = []
        for index, path in enumerate(inside):
            hold = stage / f"{number}-{index}"
            hold.mkdir(parents=True)
            mount("--bind", str(path), str(hold))
            held.append((hold, path))
        mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(folder))
        for hold, path in held:
            path.mkdir(parents=True)
            mount("--bind", str(hold), str(path))


def private_copy(folder: Path) -> None:
    """A copy of `folder` in memory over itself."""
    hold = Path("/run/openk-copy") / folder.name
    shutil.copytree(folder, hold, symlinks=True, ignore_dangling_symlinks=True)
    mount("--bind", str(hold), str(folder))


def main() -> None:
    plan = json.load(sys.stdin)
    mount("--make-rshared", "/")
    mount("-t", "proc", "proc", "/proc")
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
    mount("-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    private_copy(Path("/etc"))
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/var/lib")
    open_way([Path(path) for path in plan["reachable"]])
    for name, text in plan["files"].items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for command in plan["commands"]:
        subprocess.run(command, check=True, stdout=sys.stderr)
    os.environ.clear()
    os.environ.update({"container": "lxc", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    os.execv("/lib/systemd/systemd", ["systemd", "--system", f"--unit={plan['target']}", "--log-target=console", "--log-level=info"])


main()
