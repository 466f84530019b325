"""What is particular to opencryptoki, NSS softokn and tpm2-pkcs11; all that is common is in the contract suite."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from openk_hsm.pkcs11.quirks import FAMILIES, NONE, family_of, quirks_of
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Purpose, Resident
from tests.hsm_contract.conftest import SLOTS
from tests.support.foreign_tokens import SOFTOKN, ForeignToken, refusal_of, serving, softokn, tpm2
from tests.support.tokens import answer, lane_over


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignToken]:
    with tpm2(tmp_path_factory.mktemp("tpm") / "t") as token:
        yield token


async def test_a_tpm_is_refused_because_it_makes_no_aes_keys(tpm: ForeignToken) -> None:
    error = await refusal_of(tpm)
    assert error.code == "key.unsupported"
    assert "the token makes no AES keys (CKR_FUNCTION_NOT_SUPPORTED)" in str(error)


def test_root_keys_are_not_begun_on_a_tpm(tpm: ForeignToken) -> None:
    assert "makes no AES keys" in tpm.cli("init", *tpm.access, status=1)


def test_what_was_opened_is_closed_though_the_token_cannot_serve(tpm: ForeignToken) -> None:
    """A TPM without a resource manager has three sessions, and keeps them when a process just ends."""
    for _ in range(5):
        assert "makes no AES keys" in tpm.cli("probe", *tpm.access, status=1)


def test_a_tpm_lists_its_tokens(tpm: ForeignToken) -> None:
    shown = json.loads(tpm.cli("tokens", "--json", "--uri", tpm.uri))["tokens"]
    assert [token["label"] for token in shown] == ["openk-foreign", ""]
    assert [token["initialised"] for token in shown] == [True, False]
    assert {token["library_description"] for token in shown} == {"TPM2.0 Cryptoki"}


@pytest.fixture(scope="module")
def nss(tmp_path_factory: pytest.TempPathFactory) -> ForeignToken:
    return softokn(tmp_path_factory.mktemp("nss") / "t")


def test_a_module_gets_the_string_it_wants_at_its_start(nss: ForeignToken) -> None:
    assert "'NSS Certificate DB'" in nss.cli("tokens", "--uri", nss.uri)
    said = nss.cli("tokens", "--module", SOFTOKN, status=1)
    assert "does not initialise: CKR_ARGUMENTS_BAD" in said
    assert "x-initialise=configdir=" in said


@pytest.mark.parametrize(
    "path",
    [
        "slot-id=2",
        "manufacturer=Mozilla%20Foundation;token=NSS%20Certificate%20DB",
        "slot-description=NSS%20User%20Private%20Key%20and%20Certificate%20Services",
        "library-manufacturer=Mozilla%20Foundation;slot-id=2",
    ],
)
def test_a_token_is_found_by_any_attribute_of_rfc_7512(nss: ForeignToken, path: str) -> None:
    uri = nss.uri.replace("token=NSS%20Certificate%20DB", path)
    assert "key objects: AES-KWP" in nss.cli("probe", "--uri", uri, *nss.access[2:])


def test_a_token_that_no_attribute_fits_is_missing_and_the_others_are_named(nss: ForeignToken) -> None:
    uri = nss.uri.replace("token=NSS%20Certificate%20DB", "library-version=9.9")
    said = nss.cli("probe", "--uri", uri, *nss.access[2:], status=1)
    assert "no token matches library-version=9.9" in said
    assert "'NSS Certificate DB' serial=0000000000000000 slot-id=2" in said


@pytest.mark.parametrize("fixture", ["opencryptoki_token", "softokn_token"])
async def test_two_workers_log_in_to_one_token(request: pytest.FixtureRequest, fixture: str) -> None:
    """Each has a login of its own, sees what the other makes, and stays when the other is killed."""
    token: ForeignToken = request.getfixturevalue(fixture)
    mac = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)
    key = KeyHandle(next(SLOTS), mac, Resident("openk-key-two", b"two"))

    def question() -> Operation:
        return Operation(OpCode.MAC, 32, key, Mechanism.HMAC_SHA_256, b"question")

    with serving(token, "two") as left:
        async with lane_over([left]) as second:
            await second.ready()
            with serving(token, "one") as right:
                async with lane_over([right]) as first:
                    await first.ready()
                    await answer(first.generate_resident(mac, "openk-key-two", b"two"))
                    told = await answer(first.submit(question()))
                    assert await answer(second.submit(question())) == told
            assert await answer(second.submit(question())) == told
            assert await answer(second.destroy_resident("openk-key-two", b"two"))


@pytest.mark.parametrize(
    ("told", "family"),
    [
        (("SoftHSM project", "SoftHSM v2", "SoftHSM", "2.6"), "SoftHSM 2"),
        (("IBM Corp.", "IBM SoftTok", "IBM", "3.8"), "opencryptoki"),
        (("Mozilla Foundation", "NSS 3", "Mozilla Foundation", "3.87"), "NSS softokn"),
        (("IBM", "SW   TPM", "tpm2-software.github.io", "1.9"), "tpm2-pkcs11"),
        (("Infineon", "SLB9670", "tpm2-software.github.io", "1.9"), "tpm2-pkcs11"),
        (("Thales", "Luna K7", "SafeNet", "10.4"), None),
        (("SoftHSM project", "SoftHSM v3", "SoftHSM", "3.0"), None),
        (("", "", "", ""), None),
    ],
)
def test_a_family_is_known_by_what_its_token_says(told: tuple[str, str, str, str], family: str | None) -> None:
    found = family_of(*told)
    assert (found.name if found else None) == family
    assert quirks_of(*told) == (found.quirks if found else NONE)


def test_every_quirk_has_a_source() -> None:
    for family in FAMILIES:
        assert family.sources
        assert family.quirks != NONE
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_the_operators_page_tells_of_every_family() -> None:
    page = (Path(__file__).parents[2] / "docs" / "hsm.md").read_text()
    for family in FAMILIES:
        assert f"**{family.name}**" in page
