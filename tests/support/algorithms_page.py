"""The tables of docs/algorithms.md: every token that the tests have is asked, and the page says what it answered.

python -m tests.support.algorithms_page        writes the page; the contract suite compares it
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from openk_hsm import matrix
from openk_hsm.seam import TokenInfo
from tests.support.foreign_tokens import opencryptoki, refusal_of, softokn, tpm2
from tests.support.tokens import lane_over, make_token, worker
from tests.support.yubihsm import emulated, initialise

PAGE = Path(__file__).parents[2] / "docs" / "algorithms.md"
BEGIN, END = "<!-- probe: begin -->\n", "<!-- probe: end -->\n"


async def gather(folder: Path) -> dict[str, TokenInfo | str]:
    """Descriptions by product, or why a token cannot serve. Takes about five seconds."""
    softhsm = make_token(folder / "softhsm")
    columns: dict[str, TokenInfo | str] = {}
    columns["SoftHSM 2.6"] = await _describe(softhsm.uri, softhsm.folder, softhsm.pin_file, softhsm.environment)
    with opencryptoki(folder / "opencryptoki") as token:
        token.cli("init", *token.access)
        columns["opencryptoki 3.8, software token"] = await _describe(
            token.uri, token.pin_file.parent, token.pin_file, token.environment, token.prefix
        )
    token = softokn(folder / "softokn")
    token.cli("init", *token.access)
    columns["NSS softokn 3.87"] = await _describe(token.uri, token.pin_file.parent, token.pin_file, token.environment)
    with emulated() as device:
        device.add_authentication_key()
        (folder / "yubihsm").mkdir()
        pin = initialise(device, folder / "yubihsm")
        columns["YubiHSM 2, firmware 2.4"] = await _describe(device.uri(), folder / "yubihsm", pin, os.environ)
    with tpm2(folder / "tpm2") as token:
        columns["tpm2-pkcs11 1.9"] = str(await refusal_of(token))
    return columns


async def _describe(
    uri: str, folder: Path, pin_file: Path, environment: Mapping[str, str], prefix: Sequence[str] = ()
) -> TokenInfo:
    with worker(uri, folder / "s", pin_file, environment, prefix=prefix):
        async with lane_over([folder / "s"]) as lane:
            with trio.fail_after(20):
                return await lane.ready()


def tables(page: str) -> str:
    """What stands between the marks."""
    return page[page.index(BEGIN) + len(BEGIN) : page.index(END)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        fresh = matrix.markdown(trio.run(gather, Path(folder)))
    page = PAGE.read_text()
    PAGE.write_text(page.replace(tables(page), fresh))


if __name__ == "__main__":
    main()
