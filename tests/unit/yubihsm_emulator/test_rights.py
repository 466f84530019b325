"""Who may do what: capabilities of sessions and objects, domains, what may be given away. Options."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yubihsm.core import AuthSession
from yubihsm.defs import ALGORITHM, AUDIT, CAPABILITY, COMMAND, ERROR, OBJECT, OPTION
from yubihsm.exceptions import YubiHsmDeviceError
from yubihsm.objects import AuthenticationKey, HmacKey, Opaque, Template

from tests.support.emulator import Stand
from yubihsm_emulator.codes import ALL_CAPABILITIES, Capability, Command, ObjectType
from yubihsm_emulator.commands import TABLE
from yubihsm_emulator.objects import DELETE
from yubihsm_emulator.options import AUDIT_ORDER

ALL = CAPABILITY(ALL_CAPABILITIES)


def refuses(code: ERROR, act: Callable[[], object]) -> None:
    with pytest.raises(YubiHsmDeviceError) as caught:
        act()
    assert caught.value.code == code


def limited(stand: Stand, *, domains: int = 0xFFFF, rights: CAPABILITY = ALL, given: CAPABILITY = ALL) -> AuthSession:
    """A session of another key, put there by the factory's."""
    with stand.session() as factory:
        key = AuthenticationKey.put_derived(factory, 0, "limited", domains, rights, given, "limited")
    return stand.connect().create_session_derived(key.id, "limited")


NEEDING = sorted(command for command, spec in TABLE.items() if spec.needs)


@pytest.mark.parametrize("command", NEEDING, ids=lambda one: Command(one).name)
def test_a_session_without_the_capability_may_not(stand: Stand, command: int) -> None:
    needed = TABLE[command].needs
    session = limited(stand, rights=CAPABILITY(ALL_CAPABILITIES & ~needed))
    refuses(ERROR.INSUFFICIENT_PERMISSIONS, lambda: session.send_secure_cmd(COMMAND(command), bytes(8)))


@pytest.mark.parametrize("kind", list(ObjectType), ids=lambda one: one.name)
def test_each_type_has_its_own_right_to_delete(kind: ObjectType) -> None:
    assert DELETE[kind] == Capability[f"DELETE_{kind.name}"]


def test_deleting_needs_nothing_of_the_object(stand: Stand) -> None:
    session = limited(stand, rights=CAPABILITY.DELETE_HMAC_KEY)
    with stand.session() as factory:
        key = HmacKey.generate(factory, 5, "k", 1, CAPABILITY.NONE, ALGORITHM.HMAC_SHA1)
        thing = Opaque.put(factory, 5, "k", 1, CAPABILITY.NONE, ALGORITHM.OPAQUE_DATA, b"x")
    key.with_session(session).delete()
    refuses(ERROR.INSUFFICIENT_PERMISSIONS, thing.with_session(session).delete)


def test_other_domains_see_nothing(stand: Stand) -> None:
    session = limited(stand, domains=0b10)
    with stand.session() as factory:
        theirs = HmacKey.generate(factory, 5, "k", 0b01, ALL, ALGORITHM.HMAC_SHA1)
        ours = HmacKey.generate(factory, 6, "k", 0b11, ALL, ALGORITHM.HMAC_SHA1)
    hidden = theirs.with_session(session)
    for act in (hidden.get_info, hidden.delete, lambda: hidden.sign_hmac(b"x")):
        refuses(ERROR.OBJECT_NOT_FOUND, act)
    assert len(ours.with_session(session).sign_hmac(b"x")) == 20
    assert [one.id for one in session.list_objects(object_type=OBJECT.HMAC_KEY)] == [6]
    refuses(ERROR.OBJECT_EXISTS, lambda: HmacKey.generate(session, 5, "k", 0b10, ALL, ALGORITHM.HMAC_SHA1))


def test_nobody_gives_away_more_than_is_delegated_or_domains_not_theirs(stand: Stand) -> None:
    session = limited(stand, domains=0b11, given=CAPABILITY.SIGN_HMAC | CAPABILITY.GET_OPTION)

    def make(domains: int, rights: CAPABILITY) -> Callable[[], HmacKey]:
        return lambda: HmacKey.generate(session, 0, "k", domains, rights, ALGORITHM.HMAC_SHA1)

    def delegate(rights: CAPABILITY) -> Callable[[], AuthenticationKey]:
        return lambda: AuthenticationKey.put_derived(session, 0, "k", 1, CAPABILITY.NONE, rights, "x")

    make(0b10, CAPABILITY.SIGN_HMAC)()
    delegate(CAPABILITY.GET_OPTION)()
    refuses(ERROR.INSUFFICIENT_PERMISSIONS, make(0b10, CAPABILITY.VERIFY_HMAC))
    refuses(ERROR.INSUFFICIENT_PERMISSIONS, make(0b110, CAPABILITY.SIGN_HMAC))
    refuses(ERROR.INSUFFICIENT_PERMISSIONS, delegate(CAPABILITY.GET_OPTION | CAPABILITY.SET_OPTION))


def test_unassigned_capability_bits_come_back_unchanged(session: AuthSession) -> None:
    every = CAPABILITY(ALL_CAPABILITIES)
    key = AuthenticationKey.put_derived(session, 2, "k", 1, every, every, "x")
    raw = session.send_secure_cmd(COMMAND.GET_OBJECT_INFO, b"\0\2\2")
    assert key.id == 2
    assert raw[:8] == raw[-8:] == b"\xff" * 8


@given(st.binary(min_size=1, max_size=300), st.binary(max_size=40))
def test_bytes_and_labels_come_back_unchanged(data: bytes, label: bytes) -> None:
    with Stand.new().session() as session:
        for kind, algorithm in ((Opaque, ALGORITHM.OPAQUE_DATA), (Template, ALGORITHM.TEMPLATE_SSH)):
            thing = kind.put(session, 0, label, 1, CAPABILITY.NONE, algorithm, data)
            assert thing.get() == data
            info = session.send_secure_cmd(
                COMMAND.GET_OBJECT_INFO, thing.id.to_bytes(2, "big") + bytes((thing.object_type,))
            )
            assert info[18:58] == label.ljust(40, b"\0")
            assert int.from_bytes(info[10:12], "big") == len(data)


def test_objects_and_algorithms_must_suit(session: AuthSession) -> None:
    refuses(
        ERROR.INVALID_DATA,
        lambda: Opaque.put(session, 0, "k", 1, CAPABILITY.NONE, ALGORITHM.TEMPLATE_SSH, b"x"),
    )
    refuses(ERROR.INVALID_DATA, lambda: session.send_secure_cmd(COMMAND.GET_OBJECT_INFO, b"\0\1\x0a"))
    refuses(ERROR.INVALID_DATA, lambda: session.send_secure_cmd(COMMAND.LIST_OBJECTS, b"\7"))
    refuses(ERROR.WRONG_LENGTH, lambda: session.send_secure_cmd(COMMAND.LIST_OBJECTS, b"\1\0"))
    refuses(ERROR.INVALID_ID, lambda: HmacKey.generate(session, 0xFFFF, "k", 1, ALL, ALGORITHM.HMAC_SHA1))


def test_algorithms_are_switched_on_a_fresh_device_only(session: AuthSession) -> None:
    session.set_enabled_algorithms({ALGORITHM.HMAC_SHA1: False})
    assert session.get_enabled_algorithms()[ALGORITHM.HMAC_SHA1] is False
    refuses(ERROR.ALGORITHM_DISABLED, lambda: HmacKey.generate(session, 0, "k", 1, ALL, ALGORITHM.HMAC_SHA1))
    HmacKey.generate(session, 0, "k", 1, ALL, ALGORITHM.HMAC_SHA256)
    refuses(ERROR.INVALID_DATA, lambda: session.set_enabled_algorithms({ALGORITHM.HMAC_SHA1: True}))


def test_the_audit_of_commands_is_listed_in_the_devices_order(session: AuthSession) -> None:
    pairs = session.get_option(OPTION.COMMAND_AUDIT)
    assert pairs[::2] == AUDIT_ORDER
    assert set(AUDIT_ORDER) - {0x07, 0x09} == set(Command)
    assert set(pairs[1::2]) == {0}
    session.set_command_audit({COMMAND.SIGN_HMAC: AUDIT.ON, COMMAND.ECHO: AUDIT.FIXED})
    assert session.get_command_audit()[COMMAND.ECHO] == AUDIT.FIXED


def test_what_is_fixed_stays_until_reset(stand: Stand, session: AuthSession) -> None:
    session.set_force_audit(AUDIT.FIXED)
    session.set_command_audit({COMMAND.ECHO: AUDIT.FIXED})
    refuses(ERROR.INVALID_DATA, lambda: session.set_force_audit(AUDIT.OFF))
    refuses(ERROR.INVALID_DATA, lambda: session.set_command_audit({COMMAND.ECHO: AUDIT.ON}))
    session.reset_device()
    with stand.session() as again:
        assert again.get_force_audit() == AUDIT.OFF
        assert again.get_command_audit()[COMMAND.ECHO] == AUDIT.OFF


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        (OPTION.FORCE_AUDIT, b"\3", ERROR.INVALID_DATA),
        (OPTION.FORCE_AUDIT, b"\0\0", ERROR.WRONG_LENGTH),
        (OPTION.COMMAND_AUDIT, b"\x05\1", ERROR.INVALID_DATA),
        (OPTION.COMMAND_AUDIT, b"\x01\1\x02\1", ERROR.INVALID_DATA),
        (OPTION.COMMAND_AUDIT, b"\x01", ERROR.WRONG_LENGTH),
        (OPTION.ALGORITHM_TOGGLE, b"\x38\1", ERROR.INVALID_DATA),
        (OPTION.ALGORITHM_TOGGLE, b"\1\2", ERROR.INVALID_DATA),
        (OPTION.FIPS_MODE, b"\1", ERROR.INVALID_DATA),
    ],
)
def test_options_refused_change_nothing(session: AuthSession, option: OPTION, value: bytes, code: ERROR) -> None:
    before = [session.get_option(one) for one in (OPTION.FORCE_AUDIT, OPTION.COMMAND_AUDIT, OPTION.ALGORITHM_TOGGLE)]
    refuses(code, lambda: session.put_option(option, value))
    after = [session.get_option(one) for one in (OPTION.FORCE_AUDIT, OPTION.COMMAND_AUDIT, OPTION.ALGORITHM_TOGGLE)]
    assert after == before
    refuses(ERROR.INVALID_DATA, lambda: session.get_option(OPTION.FIPS_MODE))
