import pytest
from cryptography.hazmat.primitives import hashes
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.emulated_device import key_of
from yubihsm_emulator.codes import Algorithm
from yubihsm_emulator.material import modular, rsa

SHA256 = hashes.SHA256()
NUMBERS = st.integers(min_value=0, max_value=1 << 300)


@settings(deadline=None)
@given(NUMBERS, NUMBERS, NUMBERS)
def test_powers_are_those_of_pythons_integers(base: int, exponent: int, modulus: int) -> None:
    modulus = 2 * modulus + 3
    assert modular.power(base, exponent, modulus) == pow(base, exponent, modulus)


def test_pythons_integers_are_not_what_computes_a_private_key() -> None:
    """On the Pythons that the tests run on OpenSSL is reached; without this line a slow emulator would go unnoticed."""
    assert modular.bignums() is not None


def test_without_openssl_an_emulator_is_slower_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    material = key_of(Algorithm.RSA_2048)
    label = b"\x01" * 32
    sealed = rsa.encrypt_oaep(rsa.modulus(material), b"message", label, SHA256)
    assert rsa.decrypt_oaep(material, sealed, label, SHA256) == b"message"
    monkeypatch.setattr(modular, "bignums", lambda: None)
    assert rsa.decrypt_oaep(material, sealed, label, SHA256) == b"message"


def test_no_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    modular.bignums.cache_clear()
    monkeypatch.setattr("_hashlib.__file__", "/nowhere/there.so")
    try:
        assert modular.bignums() is None
        assert modular.power(3, 1 << 80, 7) == pow(3, 1 << 80, 7)
    finally:
        modular.bignums.cache_clear()


def test_an_answer_that_openssl_cannot_give_is_an_error() -> None:
    library = modular.bignums()
    assert library is not None
    with pytest.raises(MemoryError):
        library.power(3, 1 << 80, 0)
