import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.clock import Clock
from yubihsm_emulator.codes import Algorithm, ObjectType
from yubihsm_emulator.device import Device
from yubihsm_emulator.log import Event
from yubihsm_emulator.objects import StoredObject
from yubihsm_emulator.options import AUDIT_ORDER, Audit
from yubihsm_emulator.state import MAGIC, StateError, pack, unpack
from yubihsm_emulator.state_file import StateFile

U64 = st.integers(0, 2**64 - 1)

objects = st.builds(
    StoredObject,
    st.sampled_from(ObjectType),
    st.integers(2, 0xFFFE),
    st.binary(min_size=40, max_size=40),
    st.integers(0, 0xFFFF),
    U64,
    U64,
    st.sampled_from(Algorithm),
    st.just(0),
    st.integers(0, 0xFF),
    st.binary(max_size=300),
)


@st.composite
def devices(draw: st.DrawFn) -> Device:
    device = Device(draw(st.integers(1, 2**32 - 1)), clock=Clock())
    for one in draw(st.lists(objects, max_size=5, unique_by=lambda one: (one.type, one.id))):
        kept = device.store.add(one)
        if draw(st.booleans()):
            device.store.delete(kept)
    for command in draw(st.lists(st.integers(0, 255), max_size=80)):
        device.log.append(Event(command, 1, 2))
    for _ in range(draw(st.integers(0, 3))):
        device.log.count_login()
    device.options.force_audit = draw(st.sampled_from(Audit))
    for command in draw(st.lists(st.sampled_from(AUDIT_ORDER))):
        device.options.command_audit[command] = Audit.ON
    device.options.disabled = draw(st.sets(st.sampled_from(Algorithm)))
    return device


def told(device: Device) -> list[object]:
    """All that must come back."""
    return [
        device.serial,
        device.static_key,
        device.attestation_key,
        list(device.store),
        device.store.free_pages,
        device.store.written,
        [entry.raw for entry in device.log],
        (device.log.number, device.log.digest, device.log.unlogged_boots, device.log.unlogged_logins),
        (device.options.force_audit, device.options.command_audit, device.options.disabled),
    ]


def restored(data: bytes) -> Device:
    return unpack(data, clock=Clock(), random=os.urandom)


@given(devices())
@settings(deadline=None)
def test_a_device_comes_back_as_it_was(device: Device) -> None:
    assert told(restored(pack(device))) == told(device)


@given(st.data())
def test_damage_is_noticed(data: st.DataObject) -> None:
    packed = bytearray(pack(Device(1, clock=Clock())))
    bit = data.draw(st.integers(0, len(packed) * 8 - 1))
    packed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StateError):
        restored(bytes(packed))
    with pytest.raises(StateError):
        restored(bytes(packed[: data.draw(st.integers(0, len(packed) - 1))]))


def test_versions_not_known_are_named() -> None:
    packed = bytearray(pack(Device(1, clock=Clock())))
    packed[len(MAGIC) - 1] = 2
    with pytest.raises(StateError, match="version 02, this program knows 01"):
        restored(bytes(packed))


@pytest.mark.parametrize("tail", [b"", b"\7", b"\0" * 2000], ids=["short", "worse", "long"])
def test_contents_that_make_no_device(tail: bytes) -> None:
    packed = pack(Device(1, clock=Clock()))[:76] + tail
    with pytest.raises(StateError, match="damaged"):
        restored(packed + hashlib.sha256(packed).digest())


def test_a_file_is_private_whole_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "device"
    file = StateFile(str(path))
    assert file.load() is None
    device = Device(7)
    for _ in range(2):
        file.save(device)
        found = file.load()
        assert found is not None
        assert told(found) == told(device)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        device.reset()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["device", "device.lock"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StateError, match=f"{path}: the state is damaged"):
        file.load()
    file.close()


def test_one_emulator_at_a_time(tmp_path: Path) -> None:
    first = StateFile(str(tmp_path / "device"))
    with pytest.raises(StateError, match="belongs to another emulator"):
        StateFile(str(tmp_path / "device"))
    first.close()
    StateFile(str(tmp_path / "device")).close()


def test_every_change_is_seen() -> None:
    device = Device(7)
    seen = {device.version}

    def changed() -> None:
        assert device.version not in seen
        seen.add(device.version)

    one = device.store.add(StoredObject(ObjectType.OPAQUE, 2, bytes(40), 1, 0, 0, Algorithm.OPAQUE_DATA, 0, 2, b"x"))
    changed()
    device.store.replace(one)
    changed()
    device.store.delete(one)
    changed()
    device.boot()
    changed()
    device.log.count_login()
    changed()
    device.log.count_boot()
    changed()
    assert device.log.discard(1)
    changed()
    device.options.set_force_audit(b"\1")
    changed()
    device.options.set_command_audit(b"\1\1")
    changed()
    device.options.set_algorithms(b"\1\0")
    changed()
    device.reset()
    changed()
