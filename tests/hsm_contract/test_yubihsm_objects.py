"""Objects on a YubiHSM: counted, asserted, attested, limited."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yubihsm.defs import ALGORITHM, CAPABILITY
from yubihsm.objects import HmacKey, Opaque

from openk_hsm.errors import (
    HsmError,
    InvalidCiphertext,
    InvalidInput,
    TokenFull,
    Unsupported,
    Untrusted,
)
from openk_hsm.roots import FIRST_FREE_SLOT, ROOT_DATA_CCM
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Purpose, Resident
from openk_hsm.yubihsm.kinds import ATTESTATION_NEEDS, SESSION_NEEDS
from openk_hsm.yubihsm.objects import SPARE
from tests.support.yubihsm import (
    EmulatedDevice,
    emulated,
    initialise,
    lane_of,
    lane_on,
    mac,
)

P256 = KeySpec(Algorithm.P256, Purpose.SIGN)
MAC = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)


def test_a_device_is_refused_before_it_is_full(tmp_path: Path) -> None:
    with emulated() as device:
        device.add_authentication_key()
        initialise(device, tmp_path)
        with device.session() as session:
            free = 256 - len(session.list_objects())
            for _ in range(free - SPARE - 1):
                Opaque.put(session, 0, "filler", 1, CAPABILITY(0), ALGORITHM.OPAQUE_DATA, b"x")
        with lane_of(device) as lane:
            assert lane.generate_resident(MAC, "last", b"one").result()
            with pytest.raises(TokenFull, match=rf"{256 - SPARE} of 256 objects are taken"):
                lane.generate_resident(MAC, "one", b"too many").result()


def test_a_device_that_says_it_is_full_is_believed(device: EmulatedDevice) -> None:
    with lane_of(device) as lane:
        device.fault("storage-full", times=1)
        with pytest.raises(TokenFull, match="destroy resident keys"):
            lane.generate_resident(MAC, "no", b"room").result()


def test_a_key_that_is_not_as_openk_makes_it_is_not_trusted(device: EmulatedDevice) -> None:
    with device.session() as session, lane_of(device) as lane:
        put = {
            "imported": (1, CAPABILITY.SIGN_HMAC, "was not made in the device"),
            "powerful": (1, CAPABILITY.SIGN_HMAC | CAPABILITY.EXPORTABLE_UNDER_WRAP, "exportable-under-wrap"),
            "elsewhere": (3, CAPABILITY.SIGN_HMAC, "other domains"),
        }
        for number, (name, (domains, capabilities, says)) in enumerate(put.items()):
            key = HmacKey.put(session, 0, f"openk-{name}", domains, capabilities, bytes(32), ALGORITHM.HMAC_SHA256)
            label = f"openk-{name}"
            handle = KeyHandle(FIRST_FREE_SLOT + number, MAC, Resident(label, label.encode()))
            with pytest.raises(Untrusted, match=says):
                lane.submit(Operation(OpCode.MAC, 32, handle, Mechanism.HMAC_SHA_256, b"q")).result()
            key.delete()


def test_a_doubled_root_key_is_not_trusted(device: EmulatedDevice) -> None:
    with device.session() as session:
        twin = HmacKey.put(session, 0, "openk-root-mac", 1, CAPABILITY.SIGN_HMAC, bytes(32), ALGORITHM.HMAC_SHA256)
        with pytest.raises(Untrusted, match="2 objects named"):
            lane_on(device)
        twin.delete()


def test_objects_of_others_are_listed_by_their_numbers(device: EmulatedDevice) -> None:
    with lane_of(device) as lane:
        found = {info.label: info for info in lane.objects().result()}
        assert found["openk-root-mac"].id == b"openk-root-mac"
        assert found["DEFAULT AUTHKEY CHANGE THIS ASAP"].id == b"\0\1"
        assert found["openk-audit"].algorithm == "ed25519"


def test_the_device_vouches_for_keys_that_it_made(device: EmulatedDevice) -> None:
    with lane_of(device) as lane:
        made = lane.generate_resident(P256, "vouched for", b"id").result()
        assert made.public is not None
        leaf, *issuers = [x509.load_der_x509_certificate(der) for der in lane.attest("vouched for", b"id").result()]
        public = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert public == made.public
        if issuers:
            leaf.verify_directly_issued_by(issuers[0])
        assert lane.destroy_resident("vouched for", b"id").result()
        with pytest.raises(Unsupported, match="no Ed25519"):
            lane.attest("openk-audit", b"openk-audit").result()
        with pytest.raises(Unsupported, match="no secret keys"):
            lane.attest("openk-root-mac", b"openk-root-mac").result()
        with pytest.raises(HsmError, match="0 objects"):
            lane.attest("nothing", b"").result()


def test_attestation_without_the_capability_says_which(device: EmulatedDevice) -> None:
    device.add_authentication_key(50, capabilities=SESSION_NEEDS)
    with lane_of(device, key=50) as lane:
        lane.generate_resident(P256, "unvouched", b"id").result()
        with pytest.raises(Unsupported, match="sign-attestation-certificate"):
            lane.attest("unvouched", b"id").result()
        lane.destroy_resident("unvouched", b"id").result()
    assert ATTESTATION_NEEDS


def test_what_is_too_large_is_refused_with_the_limit(device: EmulatedDevice) -> None:
    with lane_of(device) as lane:
        room = 3052
        sealed = lane.submit(seal(bytes(room))).result()
        assert isinstance(sealed, bytes)
        assert lane.submit(open_(sealed)).result() == bytes(room)
        with pytest.raises(InvalidInput, match=str(room)):
            lane.submit(seal(bytes(room + 1))).result()
        with pytest.raises(InvalidCiphertext):
            lane.submit(open_(sealed + b"x")).result()
        assert len(mac(lane, bytes(3114))) == 32
        with pytest.raises(InvalidInput, match="3116"):
            mac(lane, bytes(3115))


def seal(data: bytes, context: bytes = b"c", key: KeyHandle = ROOT_DATA_CCM) -> Operation:
    return Operation(OpCode.ENCRYPT, len(data) + 62, key, Mechanism.WRAP_DATA, data, context)


def open_(data: bytes, context: bytes = b"c", key: KeyHandle = ROOT_DATA_CCM) -> Operation:
    return Operation(OpCode.DECRYPT, len(data), key, Mechanism.WRAP_DATA, data, context)
