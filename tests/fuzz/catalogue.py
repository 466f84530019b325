"""Which targets there are, and which module holds each. Imports none of them."""

from __future__ import annotations

import importlib
from typing import Final

from tests.fuzz.target import Target

PACKAGES: Final = ("openk", "openk_hsm", "openk_daemon", "openk_tools", "yubihsm_emulator")
"""What is instrumented: only there does libFuzzer see a new path."""

MODULES: Final = {
    "reader": "wire",
    "shapes": "wire",
    "arguments": "wire",
    "conversation": "wire",
    "policy": "policy",
    "policy-schema": "policy",
    "policy-split": "policy",
    "envelope": "blobs",
    "records": "blobs",
    "payload": "blobs",
    "wrapped-key": "blobs",
    "config": "configuration",
    "checkpoint": "audit",
    "note-signature": "audit",
    "public-key": "audit",
    "bundle": "audit",
    "receipt": "audit",
    "log-entry": "audit",
    "log-folder": "audit",
    "backup-manifest": "backup",
    "backup-store": "backup",
    "uri": "hsm",
    "frames": "hsm",
    "link": "hsm",
    "device-log": "hsm",
    "emulator": "emulator",
    "emulator-state": "emulator",
    "emulator-plan": "emulator",
}


def load(name: str) -> Target:
    """Imports the target's module, and with it what it fuzzes. Raises KeyError."""
    module = importlib.import_module(f"tests.fuzz.targets.{MODULES[name]}")
    (target,) = [target for target in module.TARGETS if target.name == name]
    assert isinstance(target, Target)
    return target
