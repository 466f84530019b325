"""The daemon's configuration: from a file, or for `openkd --dev DIR`. Nothing here reads the environment.

`load(path)` raises ConfigError with every mistake in the file; `development(folder)` furnishes a folder. What can be
configured is in config_values.py.
"""

from __future__ import annotations

from openk_daemon.config_development import development
from openk_daemon.config_file import load
from openk_daemon.config_values import Audit, Cache, Config, ConfigError, Hardening, Hsm, Limits, Log, Metrics, Socket

__all__ = [
    "Audit",
    "Cache",
    "Config",
    "ConfigError",
    "Hardening",
    "Hsm",
    "Limits",
    "Log",
    "Metrics",
    "Socket",
    "development",
    "load",
]
