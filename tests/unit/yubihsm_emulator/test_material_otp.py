import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import given
from hypothesis import strategies as st

from tests.support.emulated_device import refused
from yubihsm_emulator.codes import Algorithm
from yubihsm_emulator.errors import ErrorCode
from yubihsm_emulator.material import aes, otp

# Yubico's test vectors of the OTP format: credential key and private id, OTP in modhex, counters (little-endian).
VECTORS = [
    ("000102030405060708090a0b0c0d0e0f 010203040506", "dvgtiblfkbgturecfllberrvkinnctnn", "0100 01 01 0100"),
    ("000102030405060708090a0b0c0d0e0f 010203040506", "rnibcnfhdninbrdebccrndfhjgnhftee", "0100 02 01 0100"),
    ("000102030405060708090a0b0c0d0e0f 010203040506", "iikkijbdknrrdhfdrjltvgrbkkjblcbh", "ff0f 01 01 0100"),
    ("88" * 22, "dcihgvrhjeucvrinhdfddbjhfjftjdei", "8888 88 88 8888"),
    ("00" * 22, "kkkncjnvcnenkjvjgncjihljiibgbhbh", "0000 00 00 0000"),
    ("c4422890653076cde73d449b191b416a 33c69e7f249e", "iucvrkjiegbhidrcicvlgrcgkgurhjnj", "0100 00 24 a713"),
]
MODHEX = str.maketrans("cbdefghijklnrtuv", "0123456789abcdef")
KEYS = {Algorithm.AES128_YUBICO_OTP: 16, Algorithm.AES192_YUBICO_OTP: 24, Algorithm.AES256_YUBICO_OTP: 32}


@pytest.mark.parametrize(("credential", "one_time", "counters"), VECTORS)
def test_published_passwords_are_read(credential: str, one_time: str, counters: str) -> None:
    assert otp.decrypt(bytes.fromhex(credential), bytes.fromhex(one_time.translate(MODHEX))) == bytes.fromhex(counters)


@given(st.integers(0, 127), st.integers(0, 5))
def test_a_password_with_a_flipped_bit_or_for_another_id_is_invalid(bit: int, at: int) -> None:
    credential = bytes.fromhex(VECTORS[0][0])
    one_time = bytearray(bytes.fromhex(VECTORS[0][1].translate(MODHEX)))
    other = bytearray(credential)
    other[16 + at] ^= 1
    refused(ErrorCode.INVALID_OTP, lambda: otp.decrypt(bytes(other), bytes(one_time)))
    one_time[bit // 8] ^= 1 << bit % 8
    refused(ErrorCode.INVALID_OTP, lambda: otp.decrypt(credential, bytes(one_time)))


def test_a_password_with_a_wrong_crc_is_invalid() -> None:
    credential = bytes.fromhex(VECTORS[0][0])
    plain = bytearray(aes.decrypt_ecb(credential[:16], bytes.fromhex(VECTORS[0][1].translate(MODHEX))))
    plain[15] ^= 1
    refused(ErrorCode.INVALID_OTP, lambda: otp.decrypt(credential, aes.encrypt_ecb(credential[:16], bytes(plain))))


@pytest.mark.parametrize("algorithm", KEYS)
def test_credentials_are_sealed_as_drawn(algorithm: Algorithm) -> None:
    material = otp.generate(algorithm, b"\x01\x02\x03\x04")
    assert (material[:4], len(material)) == (b"\x01\x02\x03\x04", 4 + KEYS[algorithm])
    credential = os.urandom(22)
    aead = otp.seal(material, credential)
    assert len(aead) == otp.AEAD_SIZE
    nonce = b"\x01\x02\x03\x04" + aead[:6] + bytes(3)
    assert AESCCM(material[4:], 8).decrypt(nonce, aead[6:], None) == credential
    assert otp.open_aead(material, aead) == credential
    assert otp.seal(material, credential) != aead


@given(st.integers(0, 36 * 8 - 1))
def test_a_changed_aead_does_not_open(bit: int) -> None:
    material = otp.generate(Algorithm.AES128_YUBICO_OTP, bytes(4))
    aead = bytearray(otp.seal(material, bytes(22)))
    refused(ErrorCode.INVALID_DATA, lambda: otp.open_aead(b"\x01" + material[1:], bytes(aead)))
    aead[bit // 8] ^= 1 << bit % 8
    refused(ErrorCode.INVALID_DATA, lambda: otp.open_aead(material, bytes(aead)))
