"""What is done with backups while no daemon runs."""

from __future__ import annotations

from pathlib import Path

from openk_daemon.backup.restore import Restored, restore
from openk_daemon.backup.verification import Verified, verify
from openk_daemon.store.copying import SqliteOriginal


def verify_backup(backup: Path) -> Verified:
    """Raises BackupDamaged."""
    return verify(backup, SqliteOriginal(str(backup)))


def restore_backup(backup: Path, state: Path, *, replace: bool) -> Restored:
    """Raises RestoreRefused, BackupDamaged, OSError."""
    return restore(backup, state, SqliteOriginal(str(state)), replace=replace)
