"""backup.create and backup.list: what is answered while one is made, when it was, and when it was not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openk.wire.methods import METHODS
from openk_daemon.backup.keeper import Ended, Status
from openk_daemon.backup.seam import Backup, BackupFailed, Reason
from openk_daemon.call import Arguments, Call, Outcome
from openk_daemon.handlers.backup import BackupHandlers
from openk_daemon.policy.decision import Resource
from openk_daemon.refusal import Refusal
from openk_hsm.pending import Pending, resolved, settle
from tests.support.policies import caller

KEPT = Backup("20260102T030405Z-1042", 1_767_323_045, 1042, 1040, 4096)
MADE = Status((KEPT,), 3, running=False, step="waiting", share=0.0, ended=Ended(3, 1_767_323_050, 4.6, KEPT, None), due=1_767_409_445)
FAILED = replace(MADE, ended=Ended(3, 1_767_323_050, 4.6, None, BackupFailed(Reason.SPACE, "7 bytes are free")))
RUNNING = replace(MADE, run=4, running=True, step="copying", share=0.437)


class Keeping:
    """A keeper of which only the status is asked."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self.waited: list[float] = []

    def create(self, seconds: float) -> Pending[Status]:
        self.waited.append(seconds)
        return resolved(self._status)

    def status(self) -> Status:
        return self._status


async def ask(handlers: BackupHandlers, method: str, **values: int) -> Outcome:
    peer = caller(1000)
    call = Call(METHODS[method], Arguments(values), (Arguments({}),), False, Resource("System", "openk", ()), peer, "r-1")  # type: ignore[arg-type]
    return await settle(handlers.handlers()[method](call))


async def test_one_that_was_made() -> None:
    keeping = Keeping(MADE)
    outcome = await ask(BackupHandlers(keeping), "backup.create", wait=5)
    assert keeping.waited == [5]
    assert outcome.results == (
        {"run": 3, "state": "made", "backup": KEPT.name, "made": "2026-01-02T03:04:05Z", "entries": 1042, "signed": 1040,
         "bytes": 4096, "seconds": 4},
    )  # fmt: skip
    assert outcome.facts == (("run", 3), ("backup", KEPT.name))
    assert outcome.writes == ()


async def test_one_that_still_runs() -> None:
    outcome = await ask(BackupHandlers(Keeping(RUNNING)), "backup.create")
    assert outcome.results == ({"run": 4, "state": "running"},)


async def test_one_that_failed_says_why_and_names_no_path() -> None:
    with pytest.raises(Refusal) as refused:
        await ask(BackupHandlers(Keeping(FAILED)), "backup.create")
    assert refused.value.code.name == "backup.failed"
    assert str(refused.value) == "backup.failed: 7 bytes are free"
    assert refused.value.details == {"reason": "space"}


@pytest.mark.parametrize("method", ["backup.create", "backup.list"])
async def test_where_no_folder_is_configured(method: str) -> None:
    with pytest.raises(Refusal) as refused:
        await ask(BackupHandlers(None), method)
    assert refused.value.code.name == "backup.unconfigured"


async def test_the_list() -> None:
    (told,) = (await ask(BackupHandlers(Keeping(RUNNING)), "backup.list")).results
    assert told == {
        "backups": [{"backup": KEPT.name, "made": "2026-01-02T03:04:05Z", "entries": 1042, "signed": 1040, "bytes": 4096}],
        "next": "2026-01-03T03:04:05Z",
        "running": {"run": 4, "step": "copying", "percent": 43},
        "last": {"run": 3, "ended": "2026-01-02T03:04:10Z", "backup": KEPT.name, "reason": None, "text": ""},
    }  # fmt: skip
    (told,) = (await ask(BackupHandlers(Keeping(FAILED)), "backup.list")).results
    assert not isinstance(told, Refusal)
    assert told["running"] is None
    assert told["last"] == {
        "run": 3, "ended": "2026-01-02T03:04:10Z", "backup": None, "reason": "space", "text": "7 bytes are free",
    }  # fmt: skip
