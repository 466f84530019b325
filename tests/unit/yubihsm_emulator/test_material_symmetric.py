import hashlib
import hmac
import os

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from tests.support.emulated_device import refused
from yubihsm_emulator.codes import Algorithm
from yubihsm_emulator.errors import ErrorCode
from yubihsm_emulator.material import aes, ccm, hmac_key

# NIST SP 800-38A appendix F: ECB (F.1) and CBC (F.2), first two blocks.
PLAIN = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
IV = bytes(range(16))
AES_VECTORS = [
    (
        "2b7e151628aed2a6abf7158809cf4f3c",
        "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf",
        "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2",
    ),
    (
        "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
        "bd334f1d6e45f25ff712a214571fa5cc974104846d0ad3ad7734ecb3ecee4eef",
        "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a",
    ),
    (
        "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
        "f3eed1bdb5d2a03c064b5a7e3db181f8591ccb10d410ed26dc5ba74a31362870",
        "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d",
    ),
]

# RFC 4231 (cases 1 and 2), RFC 2202 (case 2 for SHA-1).
HMAC_VECTORS = [
    (Algorithm.HMAC_SHA1, b"Jefe", b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
    (
        Algorithm.HMAC_SHA256,
        b"\x0b" * 20,
        b"Hi There",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ),
    (
        Algorithm.HMAC_SHA384,
        b"Jefe",
        b"what do ya want for nothing?",
        "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
    ),
    (
        Algorithm.HMAC_SHA512,
        b"Jefe",
        b"what do ya want for nothing?",
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
    ),
]
HMACS = {
    Algorithm.HMAC_SHA1: "sha1",
    Algorithm.HMAC_SHA256: "sha256",
    Algorithm.HMAC_SHA384: "sha384",
    Algorithm.HMAC_SHA512: "sha512",
}
WRAPS = {Algorithm.AES128_CCM_WRAP: 16, Algorithm.AES192_CCM_WRAP: 24, Algorithm.AES256_CCM_WRAP: 32}


@pytest.mark.parametrize(("key", "ecb", "cbc"), AES_VECTORS)
def test_aes_gives_published_blocks(key: str, ecb: str, cbc: str) -> None:
    secret = bytes.fromhex(key)
    assert aes.encrypt_ecb(secret, PLAIN).hex() == ecb
    assert aes.encrypt_cbc(secret, IV, PLAIN).hex() == cbc
    assert aes.decrypt_ecb(secret, bytes.fromhex(ecb)) == PLAIN
    assert aes.decrypt_cbc(secret, IV, bytes.fromhex(cbc)) == PLAIN


@given(st.binary(max_size=40).filter(lambda data: not data or len(data) % 16))
def test_aes_wants_whole_blocks(blocks: bytes) -> None:
    for run in (aes.encrypt_ecb, aes.decrypt_ecb):
        refused(ErrorCode.WRONG_LENGTH, lambda run=run: run(bytes(16), blocks))
    for chain in (aes.encrypt_cbc, aes.decrypt_cbc):
        refused(ErrorCode.WRONG_LENGTH, lambda chain=chain: chain(bytes(16), IV, blocks))


@pytest.mark.parametrize(("algorithm", "key", "data", "mac"), HMAC_VECTORS)
def test_hmac_gives_published_macs(algorithm: Algorithm, key: bytes, data: bytes, mac: str) -> None:
    material = hmac_key.from_key(algorithm, key)
    assert hmac_key.sign(algorithm, material, data).hex() == mac
    assert hmac_key.verify(algorithm, material, bytes.fromhex(mac), data)
    assert not hmac_key.verify(algorithm, material, bytes.fromhex(mac), data + b"!")


@given(st.sampled_from(sorted(HMACS)), st.binary(min_size=1, max_size=64), st.binary(max_size=300))
def test_hmac_agrees_with_the_standard_library(algorithm: Algorithm, key: bytes, data: bytes) -> None:
    material = hmac_key.from_key(algorithm, key)
    assert len(material) == 2 * hashlib.new(HMACS[algorithm]).block_size
    assert hmac_key.from_body(algorithm, material) == material
    assert hmac_key.sign(algorithm, material, data) == hmac.digest(key, data, HMACS[algorithm])


@pytest.mark.parametrize("algorithm", HMACS)
def test_hmac_keys_fit_a_block_and_bodies_two_of_one_key(algorithm: Algorithm) -> None:
    block = hashlib.new(HMACS[algorithm]).block_size
    assert len(hmac_key.from_key(algorithm, bytes(block))) == 2 * block
    for key in (b"", bytes(block + 1)):
        refused(ErrorCode.WRONG_LENGTH, lambda key=key: hmac_key.from_key(algorithm, key))
    body = hmac_key.generate(algorithm)
    for wrong in (body[1:], body[:-1] + bytes((body[-1] ^ 1,)), b""):
        refused(ErrorCode.INVALID_DATA, lambda wrong=wrong: hmac_key.from_body(algorithm, wrong))


def test_algorithms_of_other_families_are_refused() -> None:
    for algorithm in Algorithm:
        if algorithm not in HMACS:
            refused(ErrorCode.INVALID_DATA, lambda algorithm=algorithm: hmac_key.generate(algorithm))
        if algorithm not in WRAPS:
            refused(ErrorCode.INVALID_DATA, lambda algorithm=algorithm: ccm.generate(algorithm))
        if algorithm not in {Algorithm.AES128, Algorithm.AES192, Algorithm.AES256}:
            refused(ErrorCode.INVALID_DATA, lambda algorithm=algorithm: aes.generate(algorithm))


@given(st.sampled_from(sorted(WRAPS)), st.binary(max_size=300))
def test_ccm_blobs_are_those_of_rfc_3610(algorithm: Algorithm, plaintext: bytes) -> None:
    key = ccm.generate(algorithm)
    assert len(key) == WRAPS[algorithm]
    blob = ccm.seal(key, plaintext)
    assert blob == blob[:13] + _ccm(key, blob[:13], plaintext)
    assert ccm.open_blob(key, blob) == plaintext
    assert ccm.seal(key, plaintext) != blob


@given(st.binary(max_size=64), st.data())
def test_ccm_blobs_with_a_flipped_bit_do_not_open(plaintext: bytes, data: st.DataObject) -> None:
    key = os.urandom(32)
    blob = bytearray(ccm.seal(key, plaintext))
    bit = data.draw(st.integers(min_value=0, max_value=8 * len(blob) - 1))
    blob[bit // 8] ^= 1 << bit % 8
    refused(ErrorCode.INVALID_DATA, lambda: ccm.open_blob(key, bytes(blob)))


def test_ccm_opens_with_its_key_only_and_whole() -> None:
    key = os.urandom(16)
    blob = ccm.seal(key, b"")
    assert len(blob) == 29
    refused(ErrorCode.INVALID_DATA, lambda: ccm.open_blob(os.urandom(16), blob))
    refused(ErrorCode.WRONG_LENGTH, lambda: ccm.open_blob(key, blob[:-1]))
    refused(ErrorCode.WRONG_LENGTH, lambda: ccm.open_blob(key, b""))


def _ccm(key: bytes, nonce: bytes, plaintext: bytes) -> bytes:
    """RFC 3610 section 2 by hand: L = 2, M = 16, no additional data."""
    flags = 8 * ((16 - 2) // 2) + (2 - 1)
    blocks = bytes((flags,)) + nonce + len(plaintext).to_bytes(2, "big") + plaintext
    blocks += bytes(-len(blocks) % 16)
    cbc = Cipher(algorithms.AES(key), modes.CBC(bytes(16))).encryptor()
    tag = (cbc.update(blocks) + cbc.finalize())[-16:]
    counter = Cipher(algorithms.AES(key), modes.CTR(b"\x01" + nonce + bytes(2))).encryptor()
    stream = counter.update(bytes(16) + plaintext)
    return stream[16:] + bytes(a ^ b for a, b in zip(tag, stream[:16], strict=True))
