import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from yubihsm.core import AuthSession
from yubihsm.defs import ALGORITHM, CAPABILITY, COMMAND, ERROR
from yubihsm.exceptions import YubiHsmDeviceError
from yubihsm.objects import AuthenticationKey, WrapKey

from tests.support.emulator import PASSWORD, Stand
from yubihsm_emulator.codes import Command
from yubihsm_emulator.commands import TABLE
from yubihsm_emulator.processor import frame

OPEN = bytes.fromhex("03000a00010001020304050607")
IN_CLEAR = {Command.ECHO, Command.DEVICE_INFO, Command.GET_DEVICE_PUBLIC_KEY}
HANDSHAKE = {Command.CREATE_SESSION, Command.AUTHENTICATE_SESSION}


def code(reply: bytes) -> int:
    """The error in a clear frame."""
    assert reply[:3] == b"\x7f\x00\x01", reply
    assert len(reply) == 4
    return reply[3]


def fails(session: AuthSession, number: int, data: bytes = b"") -> int:
    with pytest.raises(YubiHsmDeviceError) as caught:
        session.send_secure_cmd(COMMAND(number), data)
    return caught.value.code


def test_every_command_has_a_row_but_those_of_sessions() -> None:
    assert set(Command) - set(TABLE) == HANDSHAKE | {Command.SESSION_MESSAGE}


def test_sixteen_sessions_at_once_and_no_more(stand: Stand) -> None:
    sessions = [stand.session() for _ in range(16)]
    assert [one.sid for one in sessions] == list(range(16))
    assert code(stand.link.transceive(OPEN)) == ERROR.SESSIONS_FULL
    sessions[5].close()
    assert stand.session().sid == 5


def test_a_session_unused_for_thirty_seconds_is_gone(stand: Stand) -> None:
    used, unused = stand.session(), stand.session()
    for _ in range(3):
        stand.clock.now += 29
        used.get_pseudo_random(1)
    assert fails(unused, COMMAND.LIST_OBJECTS) == ERROR.INVALID_SESSION
    stand.clock.now += 30
    assert fails(used, COMMAND.LIST_OBJECTS) == ERROR.INVALID_SESSION


def test_sessions_never_answered_make_room_after_a_while(stand: Stand) -> None:
    for number in range(16):
        assert stand.link.transceive(OPEN)[:4] == bytes((0x83, 0, 17, number))
    assert code(stand.link.transceive(OPEN)) == ERROR.SESSIONS_FULL
    stand.clock.now += 30
    assert stand.session().sid == 0


def test_a_wrong_answer_frees_the_session_at_once(stand: Stand) -> None:
    for _ in range(40):
        number = stand.link.transceive(OPEN)[3]
        assert number == 0
        assert code(stand.link.transceive(b"\x04\0\x11\0" + bytes(16))) == ERROR.AUTHENTICATION_FAILED
    assert code(stand.link.transceive(b"\x04\0\x11\0" + bytes(16))) == ERROR.INVALID_SESSION


def test_a_session_not_yet_answered_or_answered_already(stand: Stand, session: AuthSession) -> None:
    assert code(stand.link.transceive(b"\x04\0\x11\0" + bytes(16))) == ERROR.INVALID_SESSION
    assert len(session.get_pseudo_random(3)) == 3
    stand.link.transceive(OPEN)
    assert code(stand.link.transceive(b"\x05\0\x19\1" + bytes(24))) == ERROR.INVALID_SESSION


def test_a_bad_mac_is_told_in_clear_and_the_session_goes_on(stand: Stand, session: AuthSession) -> None:
    assert code(stand.link.transceive(b"\x05\0\x19\0" + bytes(24))) == ERROR.AUTHENTICATION_FAILED
    assert len(session.get_pseudo_random(3)) == 3


def test_errors_of_commands_come_sealed_and_the_session_goes_on(session: AuthSession) -> None:
    assert fails(session, COMMAND.GET_OPAQUE, b"\0\7") == ERROR.OBJECT_NOT_FOUND
    assert fails(session, COMMAND.GET_OPAQUE, b"\0") == ERROR.WRONG_LENGTH
    assert len(session.get_pseudo_random(3)) == 3


@pytest.mark.parametrize("inner", [b"", b"\x01\0", b"\x01\0\2x", b"\x01\0\0x"])
def test_a_frame_inside_must_have_its_length(session: AuthSession, inner: bytes) -> None:
    assert session._secure_transceive(inner)[:4] == b"\x7f\0\1" + bytes((ERROR.WRONG_LENGTH,))
    assert len(session.get_pseudo_random(3)) == 3


def test_an_answer_must_fit_into_a_message(session: AuthSession) -> None:
    key = WrapKey.generate(session, 1, "w", 1, CAPABILITY.WRAP_DATA, ALGORITHM.AES128_CCM_WRAP, CAPABILITY.NONE)
    fitting = session.send_secure_cmd(COMMAND.WRAP_DATA, b"\0\1" + bytes(3116 - 30))
    assert (key.id, len(fitting)) == (1, 3116)
    assert fails(session, COMMAND.WRAP_DATA, b"\0\1" + bytes(3116 - 29)) == ERROR.WRONG_LENGTH


def test_close_is_answered_then_the_session_is_gone(stand: Stand, session: AuthSession) -> None:
    session.send_secure_cmd(COMMAND.CLOSE_SESSION)
    assert fails(session, COMMAND.LIST_OBJECTS) == ERROR.INVALID_SESSION


@pytest.mark.parametrize("command", sorted(set(range(256)) - IN_CLEAR - HANDSHAKE - {Command.SESSION_MESSAGE}))
def test_all_else_is_no_command_in_clear(command: int) -> None:
    assert code(Stand.new().link.transceive(frame(command, bytes(8)))) == ERROR.INVALID_COMMAND


@pytest.mark.parametrize("command", [Command.CREATE_SESSION, Command.AUTHENTICATE_SESSION, Command.SESSION_MESSAGE])
def test_sessions_do_not_nest(session: AuthSession, command: Command) -> None:
    assert fails(session, command, bytes(17)) == ERROR.INVALID_COMMAND


@given(st.binary(max_size=40))
def test_any_bytes_get_a_frame_for_an_answer(raw: bytes) -> None:
    reply = Stand.new().link.transceive(raw)
    assert int.from_bytes(reply[1:3], "big") == len(reply) - 3
    if len(raw) < 3 or int.from_bytes(raw[1:3], "big") != len(raw) - 3:
        assert code(reply) == ERROR.WRONG_LENGTH


@given(st.binary(max_size=3116))
def test_what_is_echoed_is_what_was_said(data: bytes) -> None:
    stand = Stand.new()
    assert stand.connect().send_cmd(COMMAND.ECHO, data) == data
    with stand.session() as session:
        assert session.send_secure_cmd(COMMAND.ECHO, data) == data


def test_the_size_of_the_first_message_tells_the_kind_of_session(stand: Stand, session: AuthSession) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    AuthenticationKey.put_public_key(session, 2, "p", 1, CAPABILITY.NONE, CAPABILITY.NONE, key.public_key())
    for data, expected in (
        (b"\0\1" + bytes(7), ERROR.WRONG_LENGTH),
        (b"\0\1" + bytes(65), ERROR.INVALID_DATA),
        (b"\0\2" + bytes(8), ERROR.INVALID_DATA),
        (b"\0\2" + bytes(65), ERROR.INVALID_DATA),
        (b"\0\3" + bytes(8), ERROR.OBJECT_NOT_FOUND),
    ):
        assert code(stand.link.transceive(frame(Command.CREATE_SESSION, data))) == expected
    with stand.connect().create_session_asymmetric(2, key) as other:
        assert other.send_secure_cmd(COMMAND.ECHO, b"x") == b"x"


def test_a_session_keeps_what_its_key_was(stand: Stand, session: AuthSession) -> None:
    rights = CAPABILITY.GET_PSEUDO_RANDOM | CAPABILITY.CHANGE_AUTHENTICATION_KEY
    key = AuthenticationKey.put_derived(session, 2, "k", 1, rights, CAPABILITY.NONE, "one")
    with stand.connect().create_session_derived(2, "one") as other:
        key.with_session(other).change_password("two")
        assert len(other.get_pseudo_random(3)) == 3
        assert key.get_info().sequence == 1
        key.delete()
        assert len(other.get_pseudo_random(3)) == 3


def test_reset_ends_sessions_and_renews_the_static_key(stand: Stand, session: AuthSession) -> None:
    before = stand.device.static_key
    built_in, serial = stand.device.attestation_key, stand.device.serial
    other = stand.session()
    session.reset_device()
    assert fails(other, COMMAND.LIST_OBJECTS) == ERROR.INVALID_SESSION
    assert stand.device.static_key != before
    assert (stand.device.attestation_key, stand.device.serial) == (built_in, serial)
    with stand.connect().create_session_derived(1, PASSWORD) as again:
        assert len(again.list_objects()) == 1
        assert again.send_secure_cmd(COMMAND.GET_STORAGE_INFO).hex() == "010000ff040003ff007e"


def test_too_much_random_is_refused(session: AuthSession) -> None:
    assert len(session.get_pseudo_random(3116)) == 3116
    assert fails(session, COMMAND.GET_PSEUDO_RANDOM, b"\x0c\x2d") == ERROR.INVALID_DATA


@pytest.mark.parametrize("data", [b"", b"\0"])
def test_device_info_has_pages(stand: Stand, data: bytes) -> None:
    told = stand.connect().send_cmd(COMMAND.DEVICE_INFO, data)
    assert told[:9].hex() == "020401" + f"{12345678:08x}" + "3e02"
    assert told[9:] == bytes(range(1, 56))
    assert stand.connect().send_cmd(COMMAND.DEVICE_INFO, b"\1") == b"78CLUFX5000P"
    assert code(stand.link.transceive(b"\x06\0\1\2")) == ERROR.INVALID_DATA
