"""From cgroup to unit: as systemd names them, and so that no user can pose as a system service."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.identity.units import Cgroup, Unit, cgroup_of, unit_of


@pytest.mark.parametrize(
    ("path", "name", "own"),
    [
        ("/system.slice/web.service", "web.service", None),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", None),
        ("/system.slice/web.service/workers/x.service", "web.service", "/system.slice/web.service"),
        ("/system.slice/web.service/user@0.service/x.service", "web.service", "/system.slice/web.service"),
        ("/web.service", "web.service", None),
        ("/init.scope", "init.scope", None),
        ("/system.slice/_memory.service", "memory.service", None),
        ("/system.slice/__x.service", "_x.service", None),
        (r"/system.slice/a\x2db.service", r"a\x2db.service", None),
        ("/system.slice/openkd.socket", "openkd.socket", None),
        ("/system.slice/srv-data.mount", "srv-data.mount", None),
        (
            "/machine.slice/libpod-0a1b.scope/container/system.slice/web.service",
            "libpod-0a1b.scope",
            "/machine.slice/libpod-0a1b.scope",
        ),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", None),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", "user@1000.service/init.scope", None),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.slice/x.service",
            "user@1000.service/x.service",
            None,
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service/web.service",
            "user@1000.service/x.service",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/system.slice/web.service",
            "user@1000.service/web.service",
            None,
        ),
        ("/user.slice/user-1000.slice/user@1000.service", "user@1000.service", None),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice",
            "user@1000.service",
            "/user.slice/user-1000.slice/user@1000.service",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/junk/web.service",
            "user@1000.service",
            "/user.slice/user-1000.slice/user@1000.service",
        ),
    ],
)
def test_units_of_paths(path: str, name: str, own: str | None) -> None:
    assert unit_of(path) == Unit(name, path if own is None else own)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/system.slice",
        "/docker/0a1b2c",
        "/junk/web.service",
        "/system.slice/web.target",
        "/system.slice/we b.service",
        "/system.slice/.service",
        "/system.slice/wéb.service",
        "/system.slice/" + "x" * 300 + ".service",
        "/system.slice//web.service",
        "/system.slice/web.service\n",
    ],
)
def test_paths_outside_of_units(path: str) -> None:
    assert unit_of(path) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0::/system.slice/web.service\n", Cgroup("/system.slice/web.service", v1=False, lasting=True)),
        ("0::/\n", Cgroup("/", v1=False, lasting=True)),
        # systemd on cgroup v1, and the hybrid of both
        (
            "12:pids:/a\n1:name=systemd:/system.slice/web.service\n0::/\n",
            Cgroup("/system.slice/web.service", v1=True, lasting=False),
        ),
        ("1:name=systemd:/x.service\n0::/x.service\n", Cgroup("/x.service", v1=True, lasting=False)),
        ("1:name=systemd:/\n0::/y.service\n", Cgroup("/y.service", v1=False, lasting=False)),
        ("4:memory:/m.service\n0::/y.service\n", Cgroup("/y.service", v1=False, lasting=True)),
        # of another cgroup namespace, or removed
        ("0::/../../web.service\n", None),
        ("0::/..\n", None),
        ("0::/system.slice/web.service (deleted)\n", None),
        ("4:memory:/m.service\n", None),
        ("", None),
        ("junk", None),
        ("0::", None),
        ("0::relative\n", None),
        ("0::/a:b.service\n", Cgroup("/a:b.service", v1=False, lasting=True)),
    ],
)
def test_the_cgroup_that_systemd_manages(text: str, expected: Cgroup | None) -> None:
    assert cgroup_of(text) == expected


parts = st.one_of(
    st.sampled_from(
        ["a.slice", "web.service", "user@1000.service", "x.scope", "_tasks.service", "..", "", "junk", "a (deleted)"]
    ),
    st.text(max_size=12),
)
paths = st.lists(parts, max_size=8).map(lambda found: "/" + "/".join(found))


@given(paths)
def test_any_path_gives_a_unit_that_is_in_it_or_none(path: str) -> None:
    unit = unit_of(path)
    if unit is not None:
        assert path == unit.path or path.startswith(unit.path + "/")
        assert unit.path.rpartition("/")[2].removeprefix("_") == unit.name.rpartition("/")[2]
        assert unit.name.isascii()
        assert unit.name.isprintable()
        assert unit_of(unit.path) == unit


@given(paths)
def test_nobody_below_their_manager_is_a_system_unit(below: str) -> None:
    """A user owns the tree below user@UID.service and names things there at will."""
    unit = unit_of(f"/user.slice/user-1000.slice/user@1000.service{below}")
    assert unit is not None
    assert unit.name == "user@1000.service" or unit.name.startswith("user@1000.service/")


@given(paths)
def test_nobody_below_a_unit_is_another_unit(below: str) -> None:
    assert unit_of(f"/system.slice/web.service{below}") == Unit("web.service", "/system.slice/web.service")


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    found = cgroup_of(text)
    if found is not None:
        assert found.path.startswith("/")
        unit_of(found.path)


@given(
    st.lists(
        st.builds("{}:{}:{}".format, st.integers(0, 20), st.sampled_from(["", "name=systemd", "cpu", "x,y"]), paths)
    )
)
def test_any_lines_are_read(lines: list[str]) -> None:
    cgroup_of("\n".join(lines))
