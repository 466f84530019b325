"""The same handlers on a real token: which protections SoftHSM2 has, and that all of them work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_use_of_every_key_on_softhsm2(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.support.softhsm_walk", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "leases 0"
    worked = {tuple(line.split()[1:]) for line in lines if line.startswith("ok ")}
    refused = {tuple(line.split()[1:]) for line in lines if line.startswith("key.unsupported ")}
    assert len(worked) + len(refused) == len(lines) - 1
    for algorithm in ("aes-256-gcm", "hmac-sha-256", "p-256", "p-384", "p-521", "rsa-2048"):
        assert {line[2] for line in worked if line[0] == algorithm} >= {"wrapped", "resident"}
    assert ("ed25519", "sign", "resident") in worked
    for algorithm in ("x25519", "ml-dsa-65", "ml-kem-768", "ml-kem-1024"):
        assert {line[2] for line in worked if line[0] == algorithm} == {"cached"}
    assert ("rsa-2048", "sign", "cached") in refused
    assert not {line for line in worked if line[0] == "ml-kem-512"}
