import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.emulated_device import refused
from yubihsm_emulator.codes import Algorithm
from yubihsm_emulator.errors import ErrorCode
from yubihsm_emulator.material import eddsa, edwards, keypairs

# RFC 8032 section 7.1: seed, public key, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), VECTORS)
def test_published_signatures_come_out_with_and_without_the_seed(
    seed: str, public: str, message: str, signature: str
) -> None:
    material = eddsa.from_seed(bytes.fromhex(seed))
    assert len(material) == eddsa.SIZE
    assert eddsa.point(material).hex() == public
    assert keypairs.public(Algorithm.EC_ED25519, material).hex() == public
    for one in (material, eddsa.without_seed(material)):
        assert eddsa.sign(one, bytes.fromhex(message)).hex() == signature


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_both_forms_sign_as_a_library_does(seed: bytes, message: bytes) -> None:
    material = eddsa.from_seed(seed)
    reference = Ed25519PrivateKey.from_private_bytes(seed)
    assert eddsa.point(material) == reference.public_key().public_bytes_raw()
    assert eddsa.sign(material, message) == reference.sign(message)
    assert eddsa.sign(eddsa.without_seed(material), message) == reference.sign(message)


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(min_value=0, max_value=127), st.integers(1, 255))
def test_a_body_with_a_changed_byte_is_no_key(seed: bytes, at: int, change: int) -> None:
    material = eddsa.from_seed(seed)
    assert eddsa.from_body(material) == material
    assert eddsa.from_body(eddsa.without_seed(material)) == eddsa.without_seed(material)
    spoilt = bytearray(material)
    spoilt[at] ^= change
    refused(ErrorCode.INVALID_DATA, lambda: eddsa.from_body(bytes(spoilt)))
    if not 32 <= at < 64 and at < 96:  # without the seed nothing says what the prefix of the nonce must be
        refused(ErrorCode.INVALID_DATA, lambda: eddsa.from_body(bytes(spoilt[:96])))


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=2**260), st.integers(min_value=0, max_value=2**260))
def test_multiples_depend_on_the_scalar_modulo_the_order(scalar: int, turns: int) -> None:
    assert edwards.multiple_of_base(scalar) == edwards.multiple_of_base(scalar + turns * edwards.ORDER)


def test_the_first_multiples() -> None:
    neutral, base = edwards.multiple_of_base(0), edwards.multiple_of_base(1)
    assert neutral == b"\x01" + bytes(31)
    assert base.hex() == "58" + "66" * 31
    assert edwards.multiple_of_base(edwards.ORDER - 1)[:31] == base[:31]


def test_other_sizes_are_no_key() -> None:
    material = eddsa.generate()
    refused(ErrorCode.WRONG_LENGTH, lambda: eddsa.from_seed(bytes(31)))
    for body in (b"", material[:95], material[:127], material + b"\x00", material[:64]):
        refused(ErrorCode.INVALID_DATA, lambda body=body: eddsa.from_body(body))


def test_pkcs8_needs_the_seed() -> None:
    material = eddsa.generate()
    assert keypairs.from_pkcs8(Algorithm.EC_ED25519, eddsa.to_pkcs8(material)) == material
    refused(ErrorCode.INVALID_DATA, lambda: eddsa.to_pkcs8(eddsa.without_seed(material)))
    refused(ErrorCode.INVALID_DATA, lambda: keypairs.from_pkcs8(Algorithm.EC_P256, eddsa.to_pkcs8(material)))
