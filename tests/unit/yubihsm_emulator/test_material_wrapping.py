import contextlib
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.emulated_device import key_of, refused
from yubihsm_emulator.codes import Algorithm, ObjectType
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import hmac_key, rsa
from yubihsm_emulator.material.wrapping import HEADER, WrappedObject, checked
from yubihsm_emulator.objects import DELEGATING, StoredObject

# One material for every pair of type and algorithm that can travel.
MATERIALS: dict[tuple[ObjectType, Algorithm], bytes] = {
    (ObjectType.OPAQUE, Algorithm.OPAQUE_DATA): b"anything",
    (ObjectType.OPAQUE, Algorithm.OPAQUE_X509_CERTIFICATE): b"also anything",
    (ObjectType.TEMPLATE, Algorithm.TEMPLATE_SSH): b"a template",
    (ObjectType.AUTHENTICATION_KEY, Algorithm.AES128_YUBICO_AUTHENTICATION): os.urandom(32),
    (ObjectType.AUTHENTICATION_KEY, Algorithm.EC_P256_YUBICO_AUTHENTICATION): key_of(Algorithm.EC_P256)[32:],
    (ObjectType.PUBLIC_WRAP_KEY, Algorithm.RSA_2048): rsa.modulus(key_of(Algorithm.RSA_2048)),
    (ObjectType.WRAP_KEY, Algorithm.RSA_2048): key_of(Algorithm.RSA_2048),
    **{
        (ObjectType.WRAP_KEY, algorithm): os.urandom(size)
        for algorithm, size in zip(
            (Algorithm.AES128_CCM_WRAP, Algorithm.AES192_CCM_WRAP, Algorithm.AES256_CCM_WRAP), (16, 24, 32), strict=True
        )
    },
    **{
        (ObjectType.SYMMETRIC_KEY, algorithm): os.urandom(size)
        for algorithm, size in zip((Algorithm.AES128, Algorithm.AES192, Algorithm.AES256), (16, 24, 32), strict=True)
    },
    **{
        (ObjectType.OTP_AEAD_KEY, algorithm): os.urandom(4 + size)
        for algorithm, size in zip(
            (Algorithm.AES128_YUBICO_OTP, Algorithm.AES192_YUBICO_OTP, Algorithm.AES256_YUBICO_OTP),
            (16, 24, 32),
            strict=True,
        )
    },
    **{
        (ObjectType.HMAC_KEY, algorithm): hmac_key.generate(algorithm)
        for algorithm in (
            Algorithm.HMAC_SHA1,
            Algorithm.HMAC_SHA256,
            Algorithm.HMAC_SHA384,
            Algorithm.HMAC_SHA512,
        )
    },
    **{
        (ObjectType.ASYMMETRIC_KEY, algorithm): key_of(algorithm)
        for algorithm in (
            Algorithm.RSA_2048,
            Algorithm.EC_P256,
            Algorithm.EC_P521,
            Algorithm.EC_BP512,
            Algorithm.EC_ED25519,
        )
    },
}


@st.composite
def objects(draw: st.DrawFn) -> StoredObject:
    kind, algorithm = draw(st.sampled_from(sorted(MATERIALS)))
    u16, u64 = st.integers(0, 0xFFFF), st.integers(0, 2**64 - 1)
    return StoredObject(
        kind,
        draw(u16),
        draw(st.binary(min_size=40, max_size=40)),
        draw(u16),
        draw(u64),
        draw(u64) if kind in DELEGATING else 0,
        algorithm,
        draw(st.integers(0, 255)),
        draw(st.integers(0, 255)),
        MATERIALS[kind, algorithm],
    )


@settings(deadline=None)
@given(objects(), st.integers(0, 255))
def test_what_is_packed_is_parsed(one: StoredObject, wrap_algorithm: int) -> None:
    packed = WrappedObject(wrap_algorithm, one).pack()
    assert len(packed) == HEADER + one.length
    assert WrappedObject.parse(packed) == WrappedObject(wrap_algorithm, one)


def test_fields_stand_where_they_are_drawn() -> None:
    material = MATERIALS[ObjectType.WRAP_KEY, Algorithm.AES128_CCM_WRAP]
    one = StoredObject(
        ObjectType.WRAP_KEY,
        0x1234,
        b"l" * 40,
        0x5678,
        0x1112131415161718,
        0x2122232425262728,
        Algorithm.AES128_CCM_WRAP,
        0x99,
        0x12,
        material,
    )
    assert WrappedObject(29, one).pack().hex() == (
        "1d" + "1112131415161718" + "1234" + "0018" + "5678" + "04" + "1d" + "99" + "12" + "6c" * 40
        + "2122232425262728" + material.hex()
    )  # fmt: skip


@settings(deadline=None)
@given(objects(), st.data())
def test_a_plaintext_cut_or_lengthened_is_no_object(one: StoredObject, data: st.DataObject) -> None:
    packed = WrappedObject(42, one).pack()
    cut = data.draw(st.integers(0, len(packed) - 1))
    refused(ErrorCode.INVALID_DATA, lambda: WrappedObject.parse(packed[:cut]))
    refused(ErrorCode.INVALID_DATA, lambda: WrappedObject.parse(packed + b"\x00"))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_an_error_of_the_device(plaintext: bytes) -> None:
    with contextlib.suppress(DeviceError):
        assert WrappedObject.parse(plaintext).pack() == plaintext


def test_no_type_takes_the_algorithms_of_another() -> None:
    for kind in ObjectType:
        for algorithm in Algorithm:
            for (known, used), material in MATERIALS.items():
                if (kind, algorithm) == (known, used) or used is not algorithm:
                    continue
                if (kind, algorithm) in MATERIALS and material == MATERIALS[kind, algorithm]:
                    continue
                refused(
                    ErrorCode.INVALID_DATA,
                    lambda kind=kind, algorithm=algorithm, material=material: checked(kind, algorithm, material),
                )


@pytest.mark.parametrize(("kind", "algorithm"), MATERIALS, ids=lambda one: one.name)
def test_material_of_another_length_is_refused(kind: ObjectType, algorithm: Algorithm) -> None:
    material = MATERIALS[kind, algorithm]
    assert checked(kind, algorithm, material) == material
    free = kind in {ObjectType.OPAQUE, ObjectType.TEMPLATE}
    for wrong in (b"",) if free else (b"", material[:-1], material + b"\x00"):
        refused(ErrorCode.INVALID_DATA, lambda wrong=wrong: checked(kind, algorithm, wrong))


def test_only_ed25519_leaves_its_seed_behind() -> None:
    for (kind, algorithm), material in MATERIALS.items():
        one = StoredObject(kind, 1, bytes(40), 1, 0, 0, algorithm, 0, 1, material)
        wrapped = WrappedObject(42, one)
        seedless = replace(one, material=material[:96])
        expected = seedless if algorithm is Algorithm.EC_ED25519 else one
        assert wrapped.without_seed().content == expected
        assert WrappedObject.parse(wrapped.without_seed().pack()).content == expected
