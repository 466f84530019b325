"""Encrypt, then MAC, on a token of two primitives: what is wrong is found before anything is decrypted, and one answer is
given for all of it. (On real tokens: tests/hsm_contract.)"""

# ruff: noqa: ANN401 - what ctypes hands over: addresses, buffers, references

from __future__ import annotations

import ctypes
from ctypes import addressof, memmove, string_at
from typing import Any, Final, cast

import pytest
from cryptography.hazmat.primitives import hashes, hmac, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from openk_hsm.errors import InvalidCiphertext
from openk_hsm.pkcs11.composite import LONGER, TAG, Composite
from openk_hsm.pkcs11.module import Module
from openk_hsm.seam import Mechanism, OpCode
from openk_hsm.specs import GCM_NONCE, OPCODES

KEY: Final = bytes(range(32))
SLOT: Final = 1
AT: Final = {"nonce": 0, "aad": 16, "data": 64, "out": 512}
ROOM: Final = 256


class Token:
    """AES-CBC and HMAC as a module has them. `decryptions`: how often it was asked to decrypt."""

    def __init__(self) -> None:
        self.decryptions = 0
        self._iv = b""

    def encrypt_init(self, _session: int, mechanism: Any, _key: int) -> int:
        self._iv = string_at(mechanism._obj.parameter, 16)
        return 0

    def encrypt(self, _session: int, data: Any, length: int, out: Any, written: Any) -> int:
        padder = padding.PKCS7(128).padder()
        padded = padder.update(string_at(data, length)) + padder.finalize()
        encryptor = Cipher(algorithms.AES256(KEY), modes.CBC(self._iv)).encryptor()
        made = encryptor.update(padded) + encryptor.finalize()
        memmove(out, made, len(made))
        written._obj.value = len(made)
        return 0

    def decrypt_init(self, session: int, mechanism: Any, key: int) -> int:
        self.decryptions += 1
        return self.encrypt_init(session, mechanism, key)

    def decrypt(self, _session: int, data: int, length: int, out: int, written: Any) -> int:
        decryptor = Cipher(algorithms.AES256(KEY), modes.CBC(self._iv)).decryptor()
        padded = decryptor.update(string_at(data, length)) + decryptor.finalize()
        unpadder = padding.PKCS7(128).unpadder()
        opened = unpadder.update(padded) + unpadder.finalize()
        memmove(out, opened, len(opened))
        written._obj.value = len(opened)
        return 0

    def sign_init(self, _session: int, _mechanism: Any, _key: int) -> int:
        return 0

    def sign(self, _session: int, message: bytes, _length: int, out: Any, _written: Any) -> int:
        state = hmac.HMAC(KEY, hashes.SHA256())
        state.update(message)
        memmove(out, state.finalize(), TAG)
        return 0


class Bench:
    def __init__(self) -> None:
        self.region = ctypes.create_string_buffer(1024)
        self.token = Token()
        self.composite = Composite(cast("Module", self.token), 7, addressof(self.region))
        self.composite.pairs[SLOT] = (1, 2)

    def place(self, **parts: bytes) -> dict[str, tuple[int, int]]:
        for name, part in parts.items():
            ctypes.memmove(addressof(self.region) + AT[name], part, len(part))
        return {name: (AT[name], len(part)) for name, part in parts.items()}

    def seal(self, nonce: bytes, aad: bytes, data: bytes) -> bytes:
        at = self.place(nonce=nonce, aad=aad, data=data)
        length = self.composite.encrypt(SLOT, at["nonce"], at["aad"], at["data"], AT["out"], ROOM)
        return self.region.raw[AT["out"] : AT["out"] + length]

    def open(self, nonce: bytes, aad: bytes, data: bytes) -> bytes:
        at = self.place(nonce=nonce, aad=aad, data=data)
        length = self.composite.decrypt(SLOT, at["nonce"], at["aad"], at["data"], AT["out"], ROOM)
        return self.region.raw[AT["out"] : AT["out"] + length]


@given(
    nonce=st.binary(min_size=GCM_NONCE, max_size=GCM_NONCE), aad=st.binary(max_size=40), data=st.binary(max_size=100)
)
def test_what_was_sealed_opens(nonce: bytes, aad: bytes, data: bytes) -> None:
    bench = Bench()
    sealed = bench.seal(nonce, aad, data)
    assert len(sealed) == len(data) + LONGER
    assert bench.open(nonce, aad, sealed) == data


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17])
def test_whatever_is_wrong_is_the_same_and_nothing_is_decrypted(length: int) -> None:
    """Text, padding, the zeros behind, tag, nonce, AAD: each bit of them. A padding oracle (Vaudenay 2002) needs an answer
    that depends on the padding, and so a decryption."""
    bench = Bench()
    nonce, aad, data = bytes(GCM_NONCE), b"aad", b"d" * length
    sealed = bench.seal(nonce, aad, data)
    told: set[tuple[str, str]] = set()
    for bit in range(8 * (len(nonce) + len(aad) + len(sealed))):
        broken = bytearray(nonce + aad + sealed)
        broken[bit // 8] ^= 1 << bit % 8
        at = len(nonce) + len(aad)
        with pytest.raises(InvalidCiphertext) as caught:
            bench.open(bytes(broken[: len(nonce)]), bytes(broken[len(nonce) : at]), bytes(broken[at:]))
        told.add((type(caught.value).__name__, str(caught.value)))
    assert len(told) == 1
    assert bench.token.decryptions == 0
    assert bench.open(nonce, aad, sealed) == data


def test_no_rsa_decryption_has_the_padding_of_pkcs_1_version_1_5() -> None:
    """Bleichenbacher's oracle (1998) needs one: there is OAEP and nothing else."""
    decrypting = {mechanism.name for mechanism, codes in OPCODES.items() if OpCode.DECRYPT in codes}
    assert {name for name in decrypting if name.startswith("RSA")} == {
        mechanism.name for mechanism in Mechanism if mechanism.name.startswith("RSA_OAEP")
    }
