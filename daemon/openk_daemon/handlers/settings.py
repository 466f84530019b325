"""system.config, system.config_changes, system.log_level: what an administrator sees and sets while the daemon runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from openk_daemon.call import After, Call, Handler, Outcome, Plain
from openk_daemon.observe.log import Category, Level, Log

Shown = Sequence[Mapping[str, Plain]]


class SettingsHandlers:
    def __init__(self, shown: Callable[[], Shown], compared: Callable[[], tuple[Shown, list[str]]], log: Log) -> None:
        """`shown`: the settings in force; `compared`: what the files say that is not, and the mistakes in them."""
        self._shown = shown
        self._compared = compared
        self._log = log

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "system.config": self.config,
            "system.config_changes": self.changes,
            "system.log_level": self.log_level,
        }

    async def config(self, _call: Call) -> Outcome:
        return Outcome(({"settings": self._shown()},))

    async def changes(self, _call: Call) -> Outcome:
        changes, mistakes = self._compared()
        return Outcome(({"changes": changes, "mistakes": mistakes},))

    async def log_level(self, call: Call) -> Outcome:
        named = call.arguments.optional_text("category")
        level = call.arguments.optional_text("level")
        chosen = tuple(Category) if named is None else (Category(named),)
        wanted = {} if level is None else dict.fromkeys(chosen, Level[level.upper()])
        after = {**self._log.levels, **wanted}
        levels: dict[str, Plain] = {str(category): after[category].name.lower() for category in chosen}
        if not wanted:
            return Outcome(({"levels": levels},))
        facts = (("category", named or "all"), ("level", level or ""))
        return Outcome(({"levels": levels},), facts=facts, after=(After(partial(self._log.set_levels, wanted)),))
