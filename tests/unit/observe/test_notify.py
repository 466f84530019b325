"""What the service manager hears, on a real datagram socket; what it hands over, in a real child process."""

import os
import socket
import subprocess
import sys
from fcntl import F_DUPFD, fcntl
from pathlib import Path

from openk_daemon.observe.notify import ServiceManager

CHILD = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
from openk_daemon.observe.notify import ServiceManager
manager = ServiceManager()
for name in ("openkd", "metrics", "unknown"):
    print(name, [s.getsockname() for s in manager.sockets(name)], [os.get_inheritable(s.fileno()) for s in manager.sockets(name)])
print(sorted(name for name in os.environ if name.startswith("LISTEN_")))
"""


def listening(path: str) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bound.bind(path)
    bound.settimeout(5)
    return bound


def test_words(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with listening(path) as heard:
        environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
        manager = ServiceManager(environment)
        assert environment == {}
        assert (manager.present, manager.watchdog_seconds) == (True, 30.0)
        manager.ready("serving\nFORGED=1")
        assert heard.recv(4096) == b"READY=1\nSTATUS=serving FORGED=1"
        manager.reloading()
        first, second = heard.recv(4096).split(b"\n")
        assert first == b"RELOADING=1"
        assert second.startswith(b"MONOTONIC_USEC=")
        manager.stopping("draining")
        assert heard.recv(4096) == b"STOPPING=1\nSTATUS=draining"
        manager.alive()
        assert heard.recv(4096) == b"WATCHDOG=1"
        manager.status("well")
        assert heard.recv(4096) == b"STATUS=well"


def test_abstract_address() -> None:
    with listening("\0openk-test-notify") as heard:
        ServiceManager({"NOTIFY_SOCKET": "@openk-test-notify"}).alive()
        assert heard.recv(4096) == b"WATCHDOG=1"


def test_nobody_listens(tmp_path: Path) -> None:
    ServiceManager({}).ready("alone")
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"})
    manager.ready("unheard")
    assert manager.watchdog_seconds is None


def test_inherited_sockets_by_name(tmp_path: Path) -> None:
    """systemd passes descriptors from 3 on; the child takes them by name, once, and passes them to nobody."""
    paths = [str(tmp_path / name) for name in ("a", "b", "c")]
    sockets = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in paths]
    for bound, path in zip(sockets, paths, strict=True):
        bound.bind(path)
    spare = [fcntl(bound.fileno(), F_DUPFD, 20) for bound in sockets]  # free ones: 3 to 5 may be among the others
    shuffle = f"exec 3<&{spare[0]} 4<&{spare[1]} 5<&{spare[2]}; exec '{sys.executable}' -c \"$CODE\""
    result = subprocess.run(
        ["bash", "-c", shuffle], pass_fds=spare, capture_output=True, text=True, timeout=20, check=True,
        env={**os.environ, "CODE": CHILD, "LISTEN_FDS": "3", "LISTEN_FDNAMES": "openkd:metrics:openkd"},
    )  # fmt: skip
    for bound in sockets:
        bound.close()
    for descriptor in spare:
        os.close(descriptor)
    assert result.stdout.splitlines() == [
        f"openkd ['{paths[0]}', '{paths[2]}'] []", f"metrics ['{paths[1]}'] []", "unknown [] []", "[]",
    ]  # fmt: skip
