"""AES keys of the symmetric-key objects: raw blocks (ECB) and chained blocks (CBC), no padding."""

import os
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from yubihsm_emulator.codes import Algorithm
from yubihsm_emulator.errors import DeviceError, ErrorCode

BLOCK: Final = 16
_SIZES: Final[dict[int, int]] = {Algorithm.AES128: 16, Algorithm.AES192: 24, Algorithm.AES256: 32}


def key_size(algorithm: int) -> int:
    """Bytes of a key of aes128, aes192 or aes256; INVALID DATA for any other algorithm."""
    size = _SIZES.get(algorithm)
    if size is None:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return size


def generate(algorithm: int) -> bytes:
    """A new key."""
    return os.urandom(key_size(algorithm))


def encrypt_ecb(key: bytes, blocks: bytes) -> bytes:
    """WRONG LENGTH unless whole blocks, at least one."""
    return _run(key, modes.ECB(), blocks, encrypt=True)  # noqa: S305 - the device has it


def decrypt_ecb(key: bytes, blocks: bytes) -> bytes:
    """WRONG LENGTH unless whole blocks, at least one."""
    return _run(key, modes.ECB(), blocks, encrypt=False)  # noqa: S305 - the device has it


def encrypt_cbc(key: bytes, iv: bytes, blocks: bytes) -> bytes:
    """WRONG LENGTH unless whole blocks, at least one; `iv` has 16 bytes."""
    return _run(key, modes.CBC(iv), blocks, encrypt=True)


def decrypt_cbc(key: bytes, iv: bytes, blocks: bytes) -> bytes:
    """WRONG LENGTH unless whole blocks, at least one; `iv` has 16 bytes."""
    return _run(key, modes.CBC(iv), blocks, encrypt=False)


def _run(key: bytes, mode: modes.ECB | modes.CBC, blocks: bytes, *, encrypt: bool) -> bytes:
    if not blocks or len(blocks) % BLOCK:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    cipher = Cipher(algorithms.AES(key), mode)
    context = cipher.encryptor() if encrypt else cipher.decryptor()
    return context.update(blocks) + context.finalize()
