"""docs/algorithms.md says what every token of the tests says when it is asked."""

from __future__ import annotations

from pathlib import Path

from openk_hsm import matrix
from tests.support.algorithms_page import PAGE, gather, tables
from tests.support.tokens import Token, run_cli


async def test_the_page_is_what_the_tokens_answer(tmp_path: Path) -> None:
    """Another release of a token may answer otherwise: `python -m tests.support.algorithms_page` writes the page."""
    columns = await gather(tmp_path)
    assert tables(PAGE.read_text()) == matrix.markdown(columns)
    assert len(columns) == 5


def test_the_command_prints_a_tokens_column(token: Token) -> None:
    given = ("--uri", token.uri, "--pin-file", str(token.pin_file), "--state", str(token.folder))
    printed = run_cli("probe", "--markdown", *given, environment=token.environment)
    assert first_columns(printed) == first_columns(tables(PAGE.read_text()))
    assert '"wrapped": false' in run_cli("probe", "--json", *given, environment=token.environment)
    assert "ed25519" in run_cli("probe", *given, environment=token.environment)


def first_columns(text: str) -> list[list[str]]:
    """Algorithm, purpose and the first token, which is SoftHSM2 on the page."""
    table = text.partition("\n\n")[0].splitlines()[2:]
    assert len(table) == len(matrix.specs())
    return [[cell.strip() for cell in line.split("|")[1:4]] for line in table]
