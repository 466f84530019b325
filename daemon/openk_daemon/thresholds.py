"""When openkd alarms by itself: the built-in rules with the numbers of `[alerts]`, and of whatever else says limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from openk_daemon.config_values import Config
from openk_daemon.config_watch import Threshold
from openk_daemon.observe.alerts import RULES, Change, Rule, changed
from openk_daemon.observe.standard import LAG_DEGRADED, MEMORY_DEGRADED


def alert_rules(config: Config) -> tuple[Rule, ...]:
    """Without those that are switched off. Raises ValueError, which names the alert."""
    return tuple(alert_rule(rule, config) for rule in RULES if threshold_of(rule, config).enabled)


def threshold_of(rule: Rule, config: Config) -> Threshold:
    """What `[alerts]` says of it."""
    threshold: Threshold = getattr(config.alerts, rule.name)
    return threshold


def alert_rule(rule: Rule, config: Config) -> Rule:
    """Alerts say what health says, at the same limits, unless their own numbers are set. Raises ValueError."""
    own = threshold_of(rule, config)
    raise_at, clear_at = usual_limits(config).get(rule.name, (rule.raise_at, rule.clear_at))
    based = replace(rule, raise_at=raise_at, clear_at=clear_at)
    return changed(based, Change(own.raise_at, own.clear_at, own.for_seconds))


def usual_limits(config: Config) -> Mapping[str, tuple[float, float]]:
    """Where another part of the configuration says when an alert is raised and cleared: those two, by alert."""
    health, unsigned = config.health, config.audit.checkpoint_entries
    return {
        "audit_unsigned": (LAG_DEGRADED * unsigned, unsigned),
        "disk_low": (health.disk_free_share, min(1.0, 1.5 * health.disk_free_share)),
        "hsm_slow": (health.probe_limit_seconds, health.probe_limit_seconds / 2),
        "clock_step": (health.clock_step_seconds, health.clock_step_seconds / 2),
        "backup_old": (config.backup.old_after, config.backup.old_after),
        "memory_high": (MEMORY_DEGRADED, 0.75 * MEMORY_DEGRADED),
    }
