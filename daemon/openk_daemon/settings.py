"""The configuration in force: what it is, what a reload would change, and the reload itself.

SIGHUP ─▶ read again ─┬─ a mistake: all stays as it was, and the log names file, line and key
                      └─ what may change changes at once; of the rest the log says that it waits for a start
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from typing import Final

from openk_daemon.call import Plain
from openk_daemon.config import Config, ConfigError, Loaded, Rate, methods_of
from openk_daemon.config_view import Change, changes, effective, origin, take_live
from openk_daemon.observe.log import Category, Level, Log
from openk_daemon.rates import Rates, Rule

Apply = Callable[[Config], None]
_GENERATIONS: Final = (20, 20)


class Settings:
    """`config` is what is in force. `applied`: called with it after each reload, and once by `start`."""

    def __init__(self, loaded: Loaded, log: Log, rates: Rates) -> None:
        self._loaded = loaded
        self._log = log
        self._rates = rates
        self._applied: list[Apply] = []
        self.config = loaded.config
        self.rates = rates

    def on_apply(self, apply: Apply) -> None:
        """Have `apply` called now, and after each reload."""
        self._applied.append(apply)
        apply(self.config)

    def start(self) -> None:
        """Put into force what this object looks after itself."""
        self._rates.replace(rules_of(self.config.rate))
        self._log.set_levels(levels_of(self.config))
        gc.set_threshold(self.config.tuning.collect_after, *_GENERATIONS)
        sys.setswitchinterval(self.config.tuning.switch_seconds)

    def shown(self) -> list[dict[str, Plain]]:
        """Every key: its value in force, where it was set, whether a reload changes it."""
        origins = self._loaded.origins
        return [
            {"key": found.key, "value": found.value, "origin": origin(found.key, origins), "live": found.live}
            for found in effective(self.config)
        ]

    def compared(self) -> tuple[list[dict[str, Plain]], list[str]]:
        """What the files say that is not in force, and the mistakes in them."""
        try:
            fresh = self._loaded.again()
        except ConfigError as error:
            return [], list(error.mistakes)
        return [
            {
                "key": change.key,
                "running": change.running,
                "files": change.fresh,
                "origin": origin(change.key, fresh.origins),
                "live": change.live,
            }
            for change in changes(self.config, fresh.config)
        ], []

    def reload(self) -> list[Change]:
        """Read again and put into force what may be; what that changed. Raises ConfigError: then nothing did."""
        try:
            fresh = self._loaded.again()
        except ConfigError as error:
            for mistake in error.mistakes:
                self._log.error("config.kept", None, text=mistake)
            raise
        found = changes(self.config, fresh.config)
        self._loaded = fresh
        self.config = take_live(self.config, fresh.config)
        self.start()
        for apply in self._applied:
            apply(self.config)
        for change in found:
            if change.live:
                self._log.info("config.changed", key=change.key, was=change.running, now=change.fresh)
            else:
                text = "it takes effect at the next start of openkd"
                self._log.warning("config.waits", None, key=change.key, was=change.running, now=change.fresh, text=text)
        return [change for change in found if change.live]


def levels_of(config: Config) -> dict[Category, Level]:
    """Each category's level."""
    usual = Level[config.log.level.upper()]
    own: Mapping[str, str | None] = {category: getattr(config.log.levels, category) for category in Category}
    return {category: Level[name.upper()] if (name := own[category]) else usual for category in Category}


def rules_of(rates: Mapping[str, Rate]) -> list[Rule]:
    return [
        Rule(
            name,
            rate.per_second,
            rate.burst or max(1, round(rate.per_second)),
            rate.per,
            frozenset(rate.users),
            frozenset(rate.units),
            frozenset(method for pattern in rate.methods for method in methods_of(pattern)),
            frozenset(rate.vaults),
            rate.administrators,
        )
        for name, rate in rates.items()
    ]
