"""The daemon's handlers on tokens that are not SoftHSM2: vaults and secrets too where nothing is sealed with AES-GCM."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from openk_daemon.hierarchy.envelope import AES_256_CBC_HMAC, HEADER, NONCE, Header, Kind
from openk_daemon.hierarchy.schemes import CBC_HMAC, scheme_of
from openk_daemon.hierarchy.vault_keys import DATA, PAIRED_DATA, data_spec
from openk_hsm import binding
from openk_hsm.binding import Wrap
from openk_hsm.seam import Algorithm
from tests.support.foreign_tokens import ForeignToken, opencryptoki, softokn

ROOT = Path(__file__).parents[3]


@contextmanager
def nss(folder: Path) -> Generator[ForeignToken]:
    yield softokn(folder)


def walked(token: ForeignToken, *more: str) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]]]:
    """Algorithm, purpose and protection of what worked, and of what was refused as unsupported."""
    token.cli("init", *token.access)
    walk = [sys.executable, "-W", "error", "-m", "tests.support.token_walk", token.uri, str(token.pin_file), *more]
    here = [*token.prefix, "env", f"--chdir={ROOT}", *walk]
    done = subprocess.run(here, env=dict(token.environment), capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "leases 0"
    worked = {tuple(line.split()[1:]) for line in lines if line.startswith("ok ")}
    refused = {tuple(line.split()[1:]) for line in lines if line.startswith("key.unsupported ")}
    assert len(worked) + len(refused) == len(lines) - 1
    return worked, refused


def test_every_use_of_every_key_on_opencryptoki_as_a_further_hsm(tmp_path: Path) -> None:
    """Home is another HSM. As home: tests/e2e/test_foreign_tokens.py."""
    with opencryptoki(tmp_path / "t") as token:
        worked, refused = walked(token, "further")
    for algorithm in ("hmac-sha-256", "rsa-2048"):
        assert {line[2] for line in worked if line[0] == algorithm} >= {"wrapped", "resident"}
    for algorithm in ("aes-256-gcm", "p-256", "ed25519"):
        assert {line[2] for line in worked if line[0] == algorithm} == {"cached"}
    assert ("aes-256-gcm", "encrypt", "wrapped") in refused


def test_every_use_of_every_key_on_nss_softokn(tmp_path: Path) -> None:
    with nss(tmp_path / "t") as token:
        worked, refused = walked(token)
    for algorithm in ("aes-256-gcm", "hmac-sha-256", "p-256", "p-384", "rsa-2048"):
        assert {line[2] for line in worked if line[0] == algorithm} >= {"wrapped", "resident"}
    assert ("ed25519", "sign", "resident") in refused


def test_what_cbc_and_hmac_seal_is_told_from_the_rest() -> None:
    scheme = scheme_of(Algorithm.AES_256_CBC_HMAC)
    assert scheme is CBC_HMAC
    assert scheme.overhead == HEADER + NONCE + 48 == 83
    assert Header(Kind.RECORD, bytes(16), 1, scheme.number).pack()[2] == AES_256_CBC_HMAC == 3


@pytest.mark.parametrize("spec", [DATA, PAIRED_DATA])
def test_a_vaults_data_key_says_itself_what_it_is(spec: object) -> None:
    assert spec in (DATA, PAIRED_DATA)
    known = DATA if spec == DATA else PAIRED_DATA
    blob = binding.assemble(binding.header(known, bytes(16), Wrap.CBC), bytes(32), bytes(64))
    assert data_spec(blob) == known


def test_a_blob_cut_short_is_left_to_fail_when_it_is_opened() -> None:
    assert data_spec(b"") == DATA
