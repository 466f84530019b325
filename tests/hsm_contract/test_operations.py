"""Every hot operation against what `cryptography` says, on every back end."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from openk_hsm import audit_key
from openk_hsm.errors import HsmError, InvalidCiphertext, InvalidInput
from openk_hsm.roots import AUDIT_KEY, AUDIT_KEYS, ROOT_DATA, ROOT_KW, ROOT_MAC, root_data
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Purpose
from openk_hsm.specs import DIGEST_BYTES
from tests.hsm_contract.conftest import Bench
from tests.support.tokens import answer

NONCE = bytes(range(12))
AES = KeySpec(Algorithm.AES_256_GCM, Purpose.ENCRYPT)
HASHES = {32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}


def sealing(bench: Bench) -> tuple[KeyHandle, Mechanism, int]:
    """Root's data key, its mechanism, and by how much an answer is longer than the data, at most."""
    if bench.info.data is Algorithm.AES_256_CCM:
        return root_data(bench.info.data), Mechanism.WRAP_DATA, 62
    if bench.info.data is Algorithm.AES_256_CBC_HMAC:
        return root_data(bench.info.data), Mechanism.AES_CBC_HMAC, 48
    return root_data(bench.info.data), Mechanism.AES_GCM, 16


def sealer(bench: Bench) -> tuple[Callable[[bytes, bytes], Operation], Callable[[bytes, bytes], Operation]]:
    """Operations that seal and open data in a context."""
    key, mechanism, longer = sealing(bench)
    nonce = b"" if mechanism is Mechanism.WRAP_DATA else NONCE

    def seal(data: bytes, context: bytes) -> Operation:
        return Operation(OpCode.ENCRYPT, len(data) + longer, key, mechanism, data, context, nonce)

    def open_(data: bytes, context: bytes) -> Operation:
        return Operation(OpCode.DECRYPT, len(data), key, mechanism, data, context, nonce)

    return seal, open_


async def run(bench: Bench, operation: Operation) -> bytes:
    result = await answer(bench.lane.submit(operation))
    assert isinstance(result, bytes)
    return result


async def test_random_bytes_differ_and_land_in_the_callers_memory(bench: Bench) -> None:
    first = await run(bench, Operation(OpCode.RANDOM, 32))
    into = memoryview(bytearray(40))
    length = await answer(bench.lane.submit(Operation(OpCode.RANDOM, 32, into=into)))
    assert (len(first), length) == (32, 32)
    assert first != bytes(into[:32]) != bytes(32)
    assert bytes(into[32:]) == bytes(8)


@pytest.mark.parametrize(
    ("algorithm", "mechanism", "name"),
    [
        (Algorithm.HMAC_SHA_256, Mechanism.HMAC_SHA_256, "sha256"),
        (Algorithm.HMAC_SHA_384, Mechanism.HMAC_SHA_384, "sha384"),
        (Algorithm.HMAC_SHA_512, Mechanism.HMAC_SHA_512, "sha512"),
    ],
)
async def test_macs_are_deterministic_distinct_and_as_long_as_the_hash(
    bench: Bench, algorithm: Algorithm, mechanism: Mechanism, name: str
) -> None:
    size = hashlib.new(name).digest_size
    key = await bench.key(KeySpec(algorithm, Purpose.MAC))
    one = await run(bench, Operation(OpCode.MAC, size, key, mechanism, b"a" * 1000))
    again = await run(bench, Operation(OpCode.MAC, size, key, mechanism, memoryview(b"a" * 1000)))
    other = await run(bench, Operation(OpCode.MAC, size, key, mechanism, b"b" * 1000))
    empty = await run(bench, Operation(OpCode.MAC, size, key, mechanism))
    assert one == again != other
    assert len({one, other, empty}) == 3
    assert len(one) == size


@pytest.mark.parametrize("size", [0, 1, 15, 16, 256, 100_000])
@pytest.mark.parametrize("aad", [b"", b"context"])
async def test_gcm_opens_what_it_sealed_and_nothing_else(bench: Bench, size: int, aad: bytes) -> None:
    if not await bench.has(AES):
        return
    key = await bench.key(AES)
    plain = b"\x5a" * size

    def seal() -> Operation:
        return Operation(OpCode.ENCRYPT, size + 16, key, Mechanism.AES_GCM, plain, aad, NONCE)

    sealed = await run(bench, seal())
    assert len(sealed) == size + 16

    async def opened(data: bytes, aad: bytes, nonce: bytes) -> bytes:
        into = memoryview(bytearray(size))
        operation = Operation(OpCode.DECRYPT, size, key, Mechanism.AES_GCM, data, aad, nonce, into=into)
        assert await answer(bench.lane.submit(operation)) == size
        return bytes(into)

    assert await opened(sealed, aad, NONCE) == plain
    flipped = bytes([sealed[0] ^ 1]) + sealed[1:]
    for wrong in ((flipped, aad, NONCE), (sealed, aad + b"x", NONCE), (sealed, aad, bytes(12)), (b"", aad, NONCE)):
        with pytest.raises(InvalidCiphertext):
            await opened(*wrong)
    assert await opened(sealed, aad, NONCE) == plain  # a bad ciphertext leaves the session as it was


async def test_the_roots_data_key_opens_what_it_sealed_in_that_context_only(bench: Bench) -> None:
    seal, open_ = sealer(bench)
    plain = bytes(range(64))
    sealed = await run(bench, seal(plain, b"vault 1 record 2"))
    assert plain not in sealed
    assert await run(bench, open_(sealed, b"vault 1 record 2")) == plain
    flipped = [
        sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in (0, len(sealed) // 2, -1 % len(sealed))
    ]
    wrong = [(sealed, b"vault 1 record 3"), (sealed, b""), (sealed[:-1], b"vault 1 record 2"), (b"", b"")]
    for data, context in [*wrong, *((changed, b"vault 1 record 2") for changed in flipped)]:
        with pytest.raises(InvalidCiphertext):
            await run(bench, open_(data, context))
    assert await run(bench, open_(sealed, b"vault 1 record 2")) == plain


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100_000])
async def test_a_vaults_data_key_seals_as_the_roots_does(wrapping_bench: Bench, size: int) -> None:
    bench = wrapping_bench
    _, mechanism, longer = sealing(bench)
    key = await bench.key(KeySpec(bench.info.data, Purpose.ENCRYPT), context=b"vault 1 data")
    plain = b"\x5a" * size
    sealed = await run(bench, Operation(OpCode.ENCRYPT, size + longer, key, mechanism, plain, b"c", NONCE))
    assert plain[:16] not in sealed or size < 16
    opening = Operation(OpCode.DECRYPT, size, key, mechanism, sealed, b"c", NONCE)
    assert await run(bench, opening) == plain
    for wrong in (Operation(OpCode.DECRYPT, size, key, mechanism, sealed, b"d", NONCE),
                  Operation(OpCode.DECRYPT, size, key, mechanism, sealed, b"c", bytes(12))):  # fmt: skip
        with pytest.raises(InvalidCiphertext):
            await run(bench, wrong)


async def test_the_same_data_seal_differently_each_time_where_the_device_has_the_nonce(bench: Bench) -> None:
    seal, _ = sealer(bench)
    same = {await run(bench, seal(b"x", b"")) for _ in range(4)}
    assert len(same) == (4 if bench.info.data is Algorithm.AES_256_CCM else 1)


async def test_a_nonce_is_of_the_length_that_the_mechanism_wants(bench: Bench) -> None:
    key, mechanism, _ = sealing(bench)
    for nonce in (bytes(1), NONCE) if mechanism is Mechanism.WRAP_DATA else (b"", bytes(11), bytes(16)):
        with pytest.raises(InvalidInput):
            await run(bench, Operation(OpCode.ENCRYPT, 100, key, mechanism, b"x", b"", nonce))


@pytest.mark.parametrize(
    ("algorithm", "curve", "size"),
    [
        (Algorithm.P256, ec.SECP256R1(), 32),
        (Algorithm.P384, ec.SECP384R1(), 48),
        (Algorithm.P521, ec.SECP521R1(), 66),
    ],
)
async def test_ecdsa_verifies(bench: Bench, algorithm: Algorithm, curve: ec.EllipticCurve, size: int) -> None:
    spec = KeySpec(algorithm, Purpose.SIGN)
    if not await bench.has(spec):
        return
    key = await bench.key(spec)
    public = load_der_public_key(bench.public[key.slot])
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.curve.name == curve.name
    digest = hashlib.sha256(b"message").digest()
    raw = await run(bench, Operation(OpCode.SIGN, 2 * size, key, Mechanism.ECDSA, digest))
    assert len(raw) == 2 * size
    r, s = (int.from_bytes(half, "big") for half in (raw[:size], raw[size:]))
    public.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


RSA_SIGN = [mechanism for mechanism in DIGEST_BYTES if mechanism >= Mechanism.RSA_PKCS1_SHA_256]


async def test_rsa_signs_with_every_padding_and_hash(bench: Bench) -> None:
    key = await bench.key(KeySpec(Algorithm.RSA_2048, Purpose.SIGN))
    public = load_der_public_key(bench.public[key.slot])
    assert isinstance(public, rsa.RSAPublicKey)
    for mechanism in RSA_SIGN:
        size = DIGEST_BYTES[mechanism]
        chosen = HASHES[size]
        digest = hashlib.new(chosen.name, b"message").digest()
        signature = await run(bench, Operation(OpCode.SIGN, 256, key, mechanism, digest))
        scheme = (
            padding.PSS(padding.MGF1(chosen), size) if mechanism >= Mechanism.RSA_PSS_SHA_256 else padding.PKCS1v15()
        )
        public.verify(signature, digest, scheme, utils.Prehashed(chosen))
        with pytest.raises(InvalidInput):
            await run(bench, Operation(OpCode.SIGN, 256, key, mechanism, digest[:-1]))


async def test_rsa_oaep_opens_with_the_hashes_that_the_token_names(bench: Bench) -> None:
    key = await bench.key(KeySpec(Algorithm.RSA_2048, Purpose.DECRYPT))
    public = load_der_public_key(bench.public[key.slot])
    assert isinstance(public, rsa.RSAPublicKey)
    by_mechanism = {
        Mechanism.RSA_OAEP_SHA_1: hashes.SHA1(),
        Mechanism.RSA_OAEP_SHA_256: hashes.SHA256(),
        Mechanism.RSA_OAEP_SHA_384: hashes.SHA384(),
        Mechanism.RSA_OAEP_SHA_512: hashes.SHA512(),
    }
    named = [mechanism for mechanism in by_mechanism if mechanism.name in bench.info.mechanisms]
    assert named
    for mechanism, chosen in by_mechanism.items():
        sealed = public.encrypt(b"hello", padding.OAEP(padding.MGF1(chosen), chosen, None))
        operation = Operation(OpCode.DECRYPT, 512, key, mechanism, sealed)
        if mechanism in named:
            assert await run(bench, operation) == b"hello"
            for bad in (sealed[:-1] + bytes([sealed[-1] ^ 1]), bytes(256), b"\xff" * 256, sealed[:-1], sealed + b"\0"):
                with pytest.raises(InvalidCiphertext):
                    await run(bench, Operation(OpCode.DECRYPT, 512, key, mechanism, bad))
        else:
            with pytest.raises(HsmError) as refused:
                await run(bench, operation)
            assert refused.value.code == "key.unsupported"


@pytest.mark.parametrize(
    ("algorithm", "curve", "size"),
    [(Algorithm.P256, ec.SECP256R1(), 32), (Algorithm.P521, ec.SECP521R1(), 66)],
)
async def test_ecdh_agrees(bench: Bench, algorithm: Algorithm, curve: ec.EllipticCurve, size: int) -> None:
    spec = KeySpec(algorithm, Purpose.AGREE)
    if not await bench.has(spec):
        return
    key = await bench.key(spec)
    ours = load_der_public_key(bench.public[key.slot])
    assert isinstance(ours, ec.EllipticCurvePublicKey)
    peer = ec.generate_private_key(curve)
    point = peer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    into = memoryview(bytearray(size))
    operation = Operation(OpCode.AGREE, size, key, Mechanism.ECDH, point, into=into)
    assert await answer(bench.lane.submit(operation)) == size
    assert bytes(into) == peer.exchange(ec.ECDH(), ours)
    off_curve = point[:-1] + bytes([point[-1] ^ 1])
    for wrong in (off_curve, point[:-1], b"", b"\x02" + point[1:]):
        with pytest.raises(InvalidInput):
            await run(bench, Operation(OpCode.AGREE, size, key, Mechanism.ECDH, wrong))


async def test_x25519_agrees_where_the_token_has_it(bench: Bench) -> None:
    spec = KeySpec(Algorithm.X25519, Purpose.AGREE)
    if not await bench.has(spec):
        return
    key = await bench.key(spec)
    ours = load_der_public_key(bench.public[key.slot])
    assert isinstance(ours, x25519.X25519PublicKey)
    peer = x25519.X25519PrivateKey.generate()
    point = peer.public_key().public_bytes_raw()
    assert await run(bench, Operation(OpCode.AGREE, 32, key, Mechanism.ECDH, point)) == peer.exchange(ours)


async def test_the_audit_key_signs_and_its_public_key_is_told(bench: Bench) -> None:
    """The best kind that the token makes."""
    info = bench.info
    assert info.audit == next(each for each, key in AUDIT_KEYS.items() if key.spec in info.resident)
    audit, public = audit_key.load_public(info.audit_public)
    assert audit is info.audit
    signature = audit_key.signature_of(audit, await run(bench, audit_key.signing(audit, b"tree head")))
    assert audit_key.verifies(public, b"tree head", signature)
    assert not audit_key.verifies(public, b"another head", signature)


WRONG_USES = [
    (ROOT_KW, OpCode.DECRYPT, Mechanism.AES_GCM),  # KWP undone by decrypting gives wrapped keys away
    (ROOT_KW, OpCode.ENCRYPT, Mechanism.AES_GCM),
    (ROOT_DATA, OpCode.MAC, Mechanism.HMAC_SHA_256),
    (ROOT_MAC, OpCode.MAC, Mechanism.HMAC_SHA_512),
    (ROOT_MAC, OpCode.ENCRYPT, Mechanism.AES_GCM),
    (AUDIT_KEY, OpCode.SIGN, Mechanism.ECDSA),  # where it is for that, EDDSA
    (AUDIT_KEY, OpCode.AGREE, Mechanism.ECDH),
]


@pytest.mark.parametrize(("key", "code", "mechanism"), WRONG_USES)
async def test_a_key_has_one_job(bench: Bench, key: KeyHandle, code: OpCode, mechanism: Mechanism) -> None:
    key = root_data(bench.info.data) if key is ROOT_DATA else key
    if key is AUDIT_KEY and bench.info.audit is not None:
        key = AUDIT_KEYS[bench.info.audit]
        if bench.info.audit is Algorithm.P256 and mechanism is Mechanism.ECDSA:
            mechanism = Mechanism.EDDSA
    with pytest.raises(HsmError) as refused:
        await run(bench, Operation(code, 512, key, mechanism, bytes(65), b"", NONCE))
    assert refused.value.code in {"key.input_invalid", "hsm.refused", "key.unsupported"}


async def test_an_answer_larger_than_its_room_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidInput):
        await run(bench, Operation(OpCode.MAC, 31, ROOT_MAC, Mechanism.HMAC_SHA_256, b"x"))
    seal, open_ = sealer(bench)
    opening = open_(await run(bench, seal(bytes(32), b"")), b"")
    opening.room = 31
    with pytest.raises(InvalidInput):
        await run(bench, opening)


async def test_an_operation_larger_than_the_region_is_refused(bench: Bench) -> None:
    data = bytes(5 << 20)
    with pytest.raises(InvalidInput):
        await run(bench, Operation(OpCode.MAC, 32, ROOT_MAC, Mechanism.HMAC_SHA_256, data))
    assert len(await run(bench, Operation(OpCode.MAC, 32, ROOT_MAC, Mechanism.HMAC_SHA_256, b"x"))) == 32


async def test_wrapped_mac_keys_keep_their_value(wrapping_bench: Bench) -> None:
    """The same blob in two slots is the same key: HMAC of two questions agree."""
    bench = wrapping_bench
    spec = KeySpec(Algorithm.HMAC_SHA_256, Purpose.DERIVE)
    first = await bench.key(spec)
    second = KeyHandle(first.slot + 100_000, spec, first.source)
    one = await run(bench, Operation(OpCode.MAC, 32, first, Mechanism.HMAC_SHA_256, b"q"))
    two = await run(bench, Operation(OpCode.MAC, 32, second, Mechanism.HMAC_SHA_256, b"q"))
    assert hmac.compare_digest(one, two)
    bench.lane.unload(second)
    assert await run(bench, Operation(OpCode.MAC, 32, first, Mechanism.HMAC_SHA_256, b"q")) == one
    assert await run(bench, Operation(OpCode.MAC, 32, second, Mechanism.HMAC_SHA_256, b"q")) == one
