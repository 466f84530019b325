"""openkd on a token that is not SoftHSM2 and has no Ed25519: it says at its start what to do."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.test_bad_starts import refused_start
from tests.support.foreign_tokens import softokn


def test_a_home_token_without_ed25519_is_refused_with_the_way_out(tmp_path: Path) -> None:
    token = softokn(tmp_path / "token")
    made = token.cli("init", *token.access)
    assert "openk-root-mac" in made
    assert "openk-audit" not in made
    folder = tmp_path / "dev"
    folder.mkdir(mode=0o700)
    (folder / "token-uri").write_text(token.uri + "\n")
    (folder / "pin").write_text(token.pin_file.read_text())
    (folder / "pin").chmod(0o600)
    said = refused_start(folder)
    assert "has no Ed25519 key to sign the audit log" in said
    assert "as a further HSM" in said
