"""Who makes backups, and to whom it is told."""

from __future__ import annotations

import time

from openk_daemon.audit.ledger import LogLedger
from openk_daemon.backup.keeper import Keeper, Rules
from openk_daemon.backup.maker import Maker
from openk_daemon.config import Config
from openk_daemon.observe.log import Category, Log
from openk_daemon.store.copying import SqliteOriginal
from openk_daemon.tampering import record
from openk_daemon.watch.events import Events, Kind
from openk_daemon.wiring.readings import VERSION
from openk_hsm.pending import settle


def keeper_of(config: Config, ledger: LogLedger, log: Log) -> Keeper | None:
    """None where no folder is configured."""
    if config.backup.folder is None:
        return None
    maker = Maker(config.backup.folder, config.state, SqliteOriginal(str(config.state)))
    return Keeper(maker, rules_of(config), ledger.head, log.child(Category.STORAGE), VERSION)


def rules_of(config: Config) -> Rules:
    backup = config.backup
    return Rules(backup.every_seconds, backup.keep, backup.old_after, config.audit.reserve_bytes)


class Told:
    """What becomes of a backup, told to the audit log and the event stream."""

    def __init__(self, ledger: LogLedger, events: Events) -> None:
        self._ledger = ledger
        self._events = events

    async def record(self, entry: str) -> None:
        await settle(record(self._ledger, entry))

    def publish(self, kind: str, text: str, severity: str) -> None:
        self._events.publish(Kind(kind), time.time(), text, severity=severity)
