"""`openkd --verify-backup` and `openkd --restore`: what is done with backups while no daemon runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from openk_daemon.backup.restore import RestoreRefused
from openk_daemon.backup.seam import BackupDamaged
from openk_daemon.backup.verification import Verified
from openk_daemon.config import Config
from openk_daemon.wiring.offline import restore_backup, verify_backup

DAMAGED: Final = 1
REFUSED: Final = 78
"""EX_CONFIG, as for whatever an operator has to change first."""


def verify(backup: Path) -> int:
    """The exit status: 0 verified, 1 not."""
    try:
        found = verify_backup(Path(os.path.abspath(backup)))
    except BackupDamaged as error:
        return _complain(f"{backup}: {error}", DAMAGED)
    print(f"{backup}: verified: {_told(found)}")
    return 0


def restore(backup: Path, config: Config, *, replace: bool) -> int:
    """The exit status: 0 restored, 1 the backup is damaged, 74 the disk failed, 78 refused."""
    try:
        found = restore_backup(Path(os.path.abspath(backup)), config.state, replace=replace)
    except BackupDamaged as error:
        return _complain(f"{backup}: {error}", DAMAGED)
    except RestoreRefused as error:
        return _complain(str(error), REFUSED)
    except OSError as error:
        return _complain(f"{error.filename or config.state}: {error.strerror}", os.EX_IOERR)
    print(f"{config.state}: restored from {backup}: {_told(found.verified)}")
    if found.aside is not None:
        print(f"What was there before is in {found.aside}.")
    print(
        "This is a state of the past: what was made or changed since is missing, and what was deleted since is back.\n"
        "Next: start openkd, then compare the log with a head that you kept elsewhere:\n"
        f"  openk audit verify {config.state / 'audit'} --public-key KEY --old-checkpoint HEAD"
    )
    return 0


def _told(found: Verified) -> str:
    told = found.manifest
    return f"{told.entries} audit entries, {told.signed} of them under the head of the log {found.checkpoint.origin}"


def _complain(text: str, status: int) -> int:
    print(f"openkd: {text}", file=sys.stderr)
    return status
