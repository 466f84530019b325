import contextlib
import os
from functools import partial

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric import rsa as reference
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.emulated_device import key_of, refused
from yubihsm_emulator.codes import Algorithm
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import digests, implicit_rejection, keypairs, oaep, rsa

ALGORITHMS = [Algorithm.RSA_2048, Algorithm.RSA_3072, Algorithm.RSA_4096]
KEY = key_of(Algorithm.RSA_2048)
PUBLIC = rsa.public_key(rsa.modulus(KEY))
HASHES: list[hashes.HashAlgorithm] = [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_material_has_the_drawn_parts(algorithm: Algorithm) -> None:
    material = key_of(algorithm)
    size = rsa.modulus_size(algorithm)
    assert len(material) == 7 * size // 2
    p, q, dp, dq, qinv = (int.from_bytes(material[i * size // 2 : (i + 1) * size // 2], "big") for i in range(5))
    assert int.from_bytes(rsa.modulus(material), "big") == p * q
    assert dp * 65537 % (p - 1) == 1
    assert dq * 65537 % (q - 1) == 1
    assert qinv * q % p == 1
    assert rsa.from_primes(algorithm, material[:size]) == material
    assert rsa.from_body(algorithm, material) == material
    assert keypairs.from_pkcs8(algorithm, rsa.to_pkcs8(material)) == material


def test_primes_that_make_no_key_are_refused() -> None:
    size = 256
    p, q = KEY[:128], KEY[128:256]
    for code, primes in (
        (ErrorCode.WRONG_LENGTH, KEY[: size - 1]),
        (ErrorCode.WRONG_LENGTH, b""),
        (ErrorCode.INVALID_DATA, p + p),
        (ErrorCode.INVALID_DATA, p + (int.from_bytes(q, "big") + 2).to_bytes(128, "big")),
        *((ErrorCode.INVALID_DATA, p + q[:-1] + bytes((last,))) for last in range(0, 256, 16)),
        *((ErrorCode.INVALID_DATA, p[:-1] + bytes((last,)) + q) for last in range(0, 256, 16)),
        (ErrorCode.INVALID_DATA, p + q[1:] + b"\x01"),
        (ErrorCode.INVALID_DATA, b"\xff" * 256),
        (ErrorCode.INVALID_DATA, bytes(256)),
    ):
        refused(code, lambda primes=primes: rsa.from_primes(Algorithm.RSA_2048, primes))
    refused(ErrorCode.INVALID_DATA, lambda: rsa.from_primes(Algorithm.EC_P256, KEY[:size]))


@settings(deadline=None, max_examples=60)
@given(st.integers(min_value=0, max_value=len(KEY) - 1), st.integers(min_value=1, max_value=255))
def test_no_body_with_a_changed_byte_is_a_key(at: int, change: int) -> None:
    spoilt = bytearray(KEY)
    spoilt[at] ^= change
    refused(ErrorCode.INVALID_DATA, lambda: rsa.from_body(Algorithm.RSA_2048, bytes(spoilt)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("hashed", HASHES, ids=lambda one: one.name)
def test_pkcs1_signatures_of_digests_and_of_digest_infos_are_alike(
    algorithm: Algorithm, hashed: hashes.HashAlgorithm
) -> None:
    digest = os.urandom(hashed.digest_size)
    signature = rsa.sign_pkcs1(key_of(algorithm), digest)
    public = rsa.public_key(rsa.modulus(key_of(algorithm)))
    public.verify(signature, digest, padding.PKCS1v15(), Prehashed(hashed))
    encoded = pow(int.from_bytes(signature, "big"), 65537, public.public_numbers().n).to_bytes(512, "big")
    info = encoded[encoded.rindex(b"\xff\x00\x30") + 2 :]
    assert rsa.sign_pkcs1(key_of(algorithm), info) == signature


def test_what_is_neither_digest_nor_digest_info_is_not_signed() -> None:
    for data in (b"", b"x", b"x" * 36, b"\x30\x10" + bytes(20), b"\x30\xff" + bytes(255)):
        refused(ErrorCode.INVALID_DATA, lambda data=data: rsa.sign_pkcs1(KEY, data))


@pytest.mark.parametrize("mgf", HASHES, ids=lambda one: one.name)
@pytest.mark.parametrize("hashed", HASHES, ids=lambda one: one.name)
def test_pss_with_every_mask_and_any_salt(hashed: hashes.HashAlgorithm, mgf: hashes.HashAlgorithm) -> None:
    longest = 256 - hashed.digest_size - 2
    for salt in (0, 1, 32, longest):
        digest = os.urandom(hashed.digest_size)
        signature = rsa.sign_pss(KEY, digest, salt, mgf)
        PUBLIC.verify(signature, digest, padding.PSS(padding.MGF1(mgf), salt), Prehashed(hashed))
    refused(ErrorCode.INVALID_DATA, lambda: rsa.sign_pss(KEY, digest, longest + 1, mgf))
    refused(ErrorCode.WRONG_LENGTH, lambda: rsa.sign_pss(KEY, digest + b"x", 0, mgf))


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=245))
def test_pkcs1_decryption_undoes_encryption(message: bytes) -> None:
    assert rsa.decrypt_pkcs1(KEY, PUBLIC.encrypt(message, padding.PKCS1v15())) == message


def test_wrong_pkcs1_padding_is_told_apart() -> None:
    encoded = b"\x00\x02" + b"\xc3" * 100 + b"\x00" + b"m" * 153
    assert rsa.decrypt_pkcs1(KEY, _raised(encoded)) == b"m" * 153
    for wrong in (
        b"\x00\x02\x00" + b"\xc3" * 253,
        b"\x00\x01" + encoded[2:],
        b"\x01" + encoded[1:],
        b"\x00\x02" + b"\xc3" * 7 + b"\x00" + b"m" * 246,
        b"\x00\x02" + b"\xc3" * 254,
    ):
        refused(ErrorCode.INVALID_DATA, lambda wrong=wrong: rsa.decrypt_pkcs1(KEY, _raised(wrong)))
    refused(ErrorCode.WRONG_LENGTH, lambda: rsa.decrypt_pkcs1(KEY, encoded[1:]))
    refused(ErrorCode.INVALID_DATA, lambda: rsa.decrypt_pkcs1(KEY, b"\xff" * 256))


@pytest.mark.parametrize("mgf", HASHES, ids=lambda one: one.name)
@pytest.mark.parametrize("hashed", HASHES, ids=lambda one: one.name)
@pytest.mark.parametrize("label", [b"", b"a label"])
def test_oaep_agrees_with_a_library_that_knows_the_label(
    hashed: hashes.HashAlgorithm, mgf: hashes.HashAlgorithm, label: bytes
) -> None:
    label_digest = digests.digest(hashed, label)
    for message in (b"", os.urandom(32), os.urandom(256 - 2 * hashed.digest_size - 2)):
        ciphertext = PUBLIC.encrypt(message, padding.OAEP(padding.MGF1(mgf), hashed, label))
        assert rsa.decrypt_oaep(KEY, ciphertext, label_digest, mgf) == message
        made = rsa.encrypt_oaep(rsa.modulus(KEY), message, label_digest, mgf)
        assert rsa.private_key(KEY).decrypt(made, padding.OAEP(padding.MGF1(mgf), hashed, label)) == message


def test_oaep_opens_with_the_right_label_and_mask_only() -> None:
    sha256 = hashes.SHA256()
    ciphertext = PUBLIC.encrypt(b"m", padding.OAEP(padding.MGF1(sha256), sha256, b"label"))
    right = digests.digest(sha256, b"label")
    assert rsa.decrypt_oaep(KEY, ciphertext, right, sha256) == b"m"
    for digest, mgf in ((digests.digest(sha256, b""), sha256), (right, hashes.SHA1()), (bytes(20), sha256)):
        refused(ErrorCode.INVALID_DATA, lambda digest=digest, mgf=mgf: rsa.decrypt_oaep(KEY, ciphertext, digest, mgf))
    refused(ErrorCode.WRONG_LENGTH, lambda: rsa.decrypt_oaep(KEY, ciphertext, b"short", sha256))
    for digest in (right, digests.digest(sha256, b"")):
        refused(ErrorCode.WRONG_LENGTH, lambda digest=digest: rsa.decrypt_oaep(KEY, ciphertext[1:], digest, sha256))
    refused(ErrorCode.INVALID_DATA, lambda: rsa.encrypt_oaep(rsa.modulus(KEY), bytes(191), right, sha256))


@given(st.binary(max_size=62), st.integers(min_value=0, max_value=127), st.integers(min_value=1, max_value=255))
def test_an_oaep_encoding_with_a_changed_byte_is_refused(message: bytes, at: int, change: int) -> None:
    label_digest = digests.digest(hashes.SHA256(), b"x")
    encoded = bytearray(oaep.encode(message, 128, label_digest, hashes.SHA1()))
    assert oaep.decode(bytes(encoded), label_digest, hashes.SHA1()) == message
    encoded[at] ^= change
    refused(ErrorCode.INVALID_DATA, lambda: oaep.decode(bytes(encoded), label_digest, hashes.SHA1()))


def test_pkcs8_of_another_key_is_refused() -> None:
    other = reference.generate_private_key(3, 2048).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for algorithm, encoded in (
        (Algorithm.RSA_2048, other),
        (Algorithm.RSA_3072, rsa.to_pkcs8(KEY)),
        (Algorithm.EC_P256, rsa.to_pkcs8(KEY)),
        (Algorithm.AES128, rsa.to_pkcs8(KEY)),
        (Algorithm.RSA_2048, b"no key"),
        (Algorithm.RSA_2048, b""),
    ):
        refused(
            ErrorCode.INVALID_DATA, lambda algorithm=algorithm, encoded=encoded: keypairs.from_pkcs8(algorithm, encoded)
        )


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_pkcs8_with_a_changed_byte_is_a_key_or_refused(data: st.DataObject) -> None:
    algorithm = data.draw(st.sampled_from([Algorithm.RSA_2048, Algorithm.EC_P256, Algorithm.EC_ED25519]))
    encoded = bytearray(keypairs.to_pkcs8(algorithm, key_of(algorithm)))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(DeviceError):
        assert len(keypairs.from_pkcs8(algorithm, bytes(encoded))) == len(key_of(algorithm))


@settings(deadline=None, max_examples=60)
@given(st.binary(min_size=256, max_size=256))
def test_random_bytes_are_no_primes(primes: bytes) -> None:
    odd = bytes((primes[0] | 0xC0,)) + primes[1:127] + bytes((primes[127] | 1, primes[128] | 0xC0))
    odd += primes[129:255] + bytes((primes[255] | 1,))
    refused(ErrorCode.INVALID_DATA, lambda: rsa.from_primes(Algorithm.RSA_2048, odd))


def test_a_modulus_of_a_public_wrap_key_has_its_size_and_is_odd() -> None:
    modulus = rsa.modulus(KEY)
    assert rsa.from_modulus(Algorithm.RSA_2048, modulus) == modulus
    for wrong in (modulus[1:], b"\x7f" + modulus[1:], modulus[:-1] + b"\x00", b""):
        refused(ErrorCode.INVALID_DATA, lambda wrong=wrong: rsa.from_modulus(Algorithm.RSA_2048, wrong))


@settings(deadline=None, max_examples=40)
@given(st.binary(min_size=256, max_size=256))
def test_what_openssl_answers_to_wrong_padding_is_known(number: bytes) -> None:
    """Nearly no ciphertext has right padding. Should OpenSSL change its ways, this tells."""
    ciphertext = (int.from_bytes(number, "big") % PUBLIC.public_numbers().n).to_bytes(256, "big")
    key = rsa.private_key(KEY)
    secret = implicit_rejection.secret_of(key.private_numbers().d, 256)
    assert key.decrypt(ciphertext, padding.PKCS1v15()) == implicit_rejection.synthetic(secret, ciphertext)
    refused(ErrorCode.INVALID_DATA, lambda: rsa.decrypt_pkcs1(KEY, ciphertext))


def test_a_message_that_is_like_a_rejection_is_still_given() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(implicit_rejection, "synthetic", lambda _secret, _ciphertext: b"message")
        assert rsa.decrypt_pkcs1(KEY, PUBLIC.encrypt(b"message", padding.PKCS1v15())) == b"message"


@pytest.mark.parametrize("label", [b"", b"a label"])
def test_a_ciphertext_not_below_the_modulus_is_refused(label: bytes) -> None:
    sha256, n = hashes.SHA256(), PUBLIC.public_numbers().n
    label_digest = digests.digest(sha256, label)
    for _ in range(3000):  # of most moduli a quarter leave room for one modulus more
        ciphertext = PUBLIC.encrypt(b"message", padding.OAEP(padding.MGF1(sha256), sha256, label))
        more = int.from_bytes(ciphertext, "big") + n
        if more < 2**2048:
            wrong = more.to_bytes(256, "big")
            assert rsa.decrypt_oaep(KEY, ciphertext, label_digest, sha256) == b"message"
            refused(ErrorCode.INVALID_DATA, partial(rsa.decrypt_oaep, KEY, wrong, label_digest, sha256))
            refused(ErrorCode.INVALID_DATA, partial(rsa.decrypt_pkcs1, KEY, wrong))
            return
    raise AssertionError("no ciphertext was small enough")


def _raised(encoded: bytes) -> bytes:
    return pow(int.from_bytes(encoded, "big"), 65537, PUBLIC.public_numbers().n).to_bytes(256, "big")
