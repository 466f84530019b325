"""Users and groups from the two files, and nothing that their odd lines could break."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.policy.names import Names, local_names

PASSWD = "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n+::::::\nalice:x:1000:1000::/:\nbob:x:1001:x::/:\n#\nbig:x:99999999999:0::/:\n"
GROUP = "root:x:0:\nbackup:x:34:alice,bob,\nalice:x:1000:\nops:x:34:\nshort:x\nlast:x:50:alice"


def test_names_and_memberships(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text(PASSWD, "utf-8")
    (tmp_path / "group").write_text(GROUP, "utf-8")
    assert local_names(tmp_path / "passwd", tmp_path / "group") == Names(
        users={0: "root", 1000: "alice"},
        groups={0: "root", 34: "backup", 1000: "alice", 50: "last"},
        member={0: (0,), 1000: (1000, 34, 50)},
    )


def test_a_group_is_found_by_its_name() -> None:
    assert Names(groups={34: "backup"}).gid("backup") == 34
    assert Names(groups={34: "backup"}).gid("other") is None


def test_without_files_nobody_has_a_name(tmp_path: Path) -> None:
    assert local_names(tmp_path / "passwd", tmp_path / "group") == Names()


def test_this_host_has_a_root() -> None:
    assert local_names().users[0] == "root"


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_are_read(passwd: bytes, group: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "passwd").write_bytes(passwd)
        (Path(folder) / "group").write_bytes(group)
        names = local_names(Path(folder) / "passwd", Path(folder) / "group")
    assert all(isinstance(uid, int) for uid in names.users)
