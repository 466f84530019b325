"""Attestation and notices, on every back end: certificates, or a refusal that says why there are none."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from openk_hsm.errors import Unsupported
from openk_hsm.seam import Algorithm, KeySpec, Purpose, Resident
from tests.hsm_contract.conftest import Bench
from tests.support.tokens import answer

SIGN = KeySpec(Algorithm.RSA_2048, Purpose.SIGN)


async def test_a_device_vouches_for_a_key_or_says_that_it_cannot(bench: Bench) -> None:
    key = await bench.resident(SIGN)
    assert isinstance(key.source, Resident)
    if bench.info.backend != "yubihsm":
        with pytest.raises(Unsupported, match="cannot attest"):
            await answer(bench.lane.attest(key.source.label, key.source.id))
        return
    leaf, *_ = [
        x509.load_der_x509_certificate(der) for der in await answer(bench.lane.attest(key.source.label, key.source.id))
    ]
    public = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public == bench.public[key.slot]


async def test_nobody_but_us_used_the_device(bench: Bench) -> None:
    assert list(await answer(bench.lane.notices(0))) == []
