"""The daemon's configuration: from files and a few variables, or for `openkd --dev DIR`.

`read` raises ConfigError with every mistake in them and says where each value came from, `load` only gives the values;
`development` furnishes a folder. What can be configured is in config_values.py and config_running.py, and nothing here
looks at the environment by itself: it is handed in.
"""

from __future__ import annotations

from openk_daemon.config_aging import Retention, Rotation
from openk_daemon.config_development import development, read_development
from openk_daemon.config_file import Loaded, load, methods_of, read
from openk_daemon.config_running import Backup, Crypto, Levels, Log, Rate, Tuning
from openk_daemon.config_values import Audit, Cache, Config, ConfigError, Hardening, Hsm, Limits, Socket
from openk_daemon.config_watch import Alerts, Health, Metrics, Threshold

__all__ = [
    "Alerts",
    "Audit",
    "Backup",
    "Cache",
    "Config",
    "ConfigError",
    "Crypto",
    "Hardening",
    "Health",
    "Hsm",
    "Levels",
    "Limits",
    "Loaded",
    "Log",
    "Metrics",
    "Rate",
    "Retention",
    "Rotation",
    "Socket",
    "Threshold",
    "Tuning",
    "development",
    "load",
    "methods_of",
    "read",
    "read_development",
]
