"""docs/algorithms.md says what this machine's SoftHSM2 says when it is asked."""

from __future__ import annotations

from pathlib import Path

from openk_hsm import matrix
from openk_hsm.inline import InlineLane
from tests.support.tokens import Token, run_cli

PAGE = Path(__file__).parents[2] / "docs" / "algorithms.md"


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ") and ("| yes" in line or "| no" in line)]


def test_the_matrix_is_what_the_token_answers(inline_softhsm: InlineLane) -> None:
    page = PAGE.read_text()
    written = page[page.index("<!-- probe: begin -->") : page.index("<!-- probe: end -->")]
    info = inline_softhsm.info().result()
    assert rows(written) == rows(matrix.markdown([info]))
    assert len(rows(written)) == len(matrix.specs())


def test_the_command_prints_that_table(token: Token) -> None:
    given = ("--uri", token.uri, "--pin-file", str(token.pin_file), "--state", str(token.folder))
    printed = run_cli("probe", "--markdown", *given, environment=token.environment)
    assert rows(printed) == rows(PAGE.read_text()[: PAGE.read_text().index("<!-- probe: end -->")])
    assert '"wrapped": false' in run_cli("probe", "--json", *given, environment=token.environment)
    assert "ed25519" in run_cli("probe", *given, environment=token.environment)
