"""Whatever a command is given, the device answers with a reply or an error of the protocol, and goes on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.emulated_device import Bench, header, key_of
from yubihsm_emulator.codes import Algorithm, Command, ObjectType
from yubihsm_emulator.commands import TABLE
from yubihsm_emulator.errors import DeviceError
from yubihsm_emulator.material import hmac_key

KEYPAIRS = [Algorithm.RSA_2048, Algorithm.EC_P256, Algorithm.EC_P521, Algorithm.EC_ED25519]
KEPT = range(1, 5)
"""Ids under which there is something of most types."""


@pytest.fixture(scope="module")
def bench() -> Bench:
    """A device with objects of every type."""
    made = Bench()
    every = (1 << 64) - 1
    for object_id, algorithm in zip(KEPT, KEYPAIRS, strict=True):
        made.keypair(object_id, algorithm)
    wrap = {1: Algorithm.AES128_CCM_WRAP, 2: Algorithm.AES192_CCM_WRAP, 3: Algorithm.AES256_CCM_WRAP}
    for object_id, algorithm in wrap.items():
        made.keep(ObjectType.WRAP_KEY, object_id, algorithm, bytes(8 + 8 * object_id), delegated=every)
    rsa = key_of(Algorithm.RSA_2048)
    made.keep(ObjectType.WRAP_KEY, 4, Algorithm.RSA_2048, rsa, delegated=every)
    made.keep(ObjectType.PUBLIC_WRAP_KEY, 1, Algorithm.RSA_2048, rsa[-256:], delegated=every)
    for object_id, algorithm in enumerate((Algorithm.HMAC_SHA1, Algorithm.HMAC_SHA512), 1):
        made.keep(ObjectType.HMAC_KEY, object_id, algorithm, hmac_key.from_key(algorithm, b"key"))
    made.keep(ObjectType.SYMMETRIC_KEY, 1, Algorithm.AES128, bytes(16))
    made.keep(ObjectType.SYMMETRIC_KEY, 2, Algorithm.AES256, bytes(32))
    made.keep(ObjectType.OTP_AEAD_KEY, 1, Algorithm.AES128_YUBICO_OTP, bytes(20))
    made.keep(ObjectType.OTP_AEAD_KEY, 2, Algorithm.AES256_YUBICO_OTP, bytes(36))
    made.keep(ObjectType.TEMPLATE, 1, Algorithm.TEMPLATE_SSH, b"\x01\0\x01\x09")
    made.keep(ObjectType.OPAQUE, 1, Algorithm.OPAQUE_X509_CERTIFICATE, b"no certificate")
    return made


RSA_GENERATION = {Algorithm.RSA_2048, Algorithm.RSA_3072, Algorithm.RSA_4096}
ids = st.sampled_from([*KEPT, 0, 9, 0xFFFF]).map(lambda one: one.to_bytes(2, "big"))
small = st.binary(min_size=1, max_size=1) | st.integers(1, 56).map(lambda one: bytes((one,)))
parts = st.one_of(ids, small, st.binary(max_size=70), st.sampled_from([16, 20, 32, 48, 64, 256, 261]).map(bytes))
creations = st.builds(
    header,
    st.sampled_from([0, 1, 7]),
    st.sampled_from([int(one) for one in Algorithm if one not in RSA_GENERATION]) | st.just(200),
    delegated=st.none() | st.just(0),
)
payloads = st.builds(
    lambda first, rest: first + b"".join(rest), ids | creations | st.just(b""), st.lists(parts, max_size=5)
)


@pytest.mark.parametrize("command", sorted(TABLE), ids=lambda one: Command(one).name)
@given(data=payloads)
@settings(max_examples=40, deadline=None)
def test_any_data_is_answered(bench: Bench, command: int, data: bytes) -> None:
    store = bench.device.store
    before = {(one.type, one.id): one for one in store}
    try:
        reply = bench.call(Command(command), data)
    except DeviceError:
        assert {(one.type, one.id): one for one in store} == before
    else:
        assert isinstance(reply, bytes)
    for one in list(store):  # as it was, for the next data
        if (one.type, one.id) not in before:
            store.delete(one)
    for key, one in before.items():
        if store.get(*key) is None:
            store.restore(one)
