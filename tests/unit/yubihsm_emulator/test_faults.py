import json
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yubihsm.defs import ALGORITHM, CAPABILITY, COMMAND, ERROR, OBJECT
from yubihsm.exceptions import YubiHsmConnectionError, YubiHsmDeviceError, YubiHsmInvalidResponseError
from yubihsm.objects import HmacKey

from tests.support.emulator import Stand
from yubihsm_emulator.codes import Command
from yubihsm_emulator.errors import ErrorCode
from yubihsm_emulator.faults import TIMED, Action, Fault, Plan
from yubihsm_emulator.plan_reader import PlanError, read, read_json, read_toml

RANDOM = ["GET_PSEUDO_RANDOM"]


def plan(**fault: object) -> Plan:
    return read({"faults": [fault]})


def generate(stand: Stand) -> None:
    with stand.session() as session:
        HmacKey.generate(session, 5, "k", 1, CAPABILITY.NONE, ALGORITHM.HMAC_SHA1)


def test_an_error_instead_of_the_third_command(stand: Stand) -> None:
    session = stand.session()
    stand.link.replan(plan(do="error", code="STORAGE_FAILED", commands=RANDOM, after=2))
    for turn in range(5):
        if turn == 2:
            with pytest.raises(YubiHsmDeviceError) as caught:
                session.get_pseudo_random(1)
            assert caught.value.code == ERROR.STORAGE_FAILED
        else:
            session.get_pseudo_random(1)
    assert (stand.link.plan.faults[0].seen, stand.link.plan.faults[0].done) == (5, 1)


@pytest.mark.parametrize(("do", "kept"), [("drop-request", []), ("drop-reply", [5])])
def test_what_gets_lost_on_the_way(stand: Stand, do: str, kept: list[int]) -> None:
    session = stand.session()
    stand.link.replan(plan(do=do, commands=["GENERATE_HMAC_KEY"]))
    with pytest.raises(YubiHsmConnectionError):
        HmacKey.generate(session, 5, "k", 1, CAPABILITY.NONE, ALGORITHM.HMAC_SHA1)
    with stand.session() as other:
        assert [one.id for one in other.list_objects(object_type=OBJECT.HMAC_KEY)] == kept


def test_a_session_survives_a_lost_request_but_not_a_lost_reply(stand: Stand) -> None:
    session = stand.session()
    stand.link.replan(plan(do="drop-request", commands=RANDOM))
    with pytest.raises(YubiHsmConnectionError):
        session.get_pseudo_random(1)
    session.list_objects()  # the client's counter did not move either
    stand.link.replan(plan(do="drop-reply", commands=RANDOM))
    with pytest.raises(YubiHsmConnectionError):
        session.get_pseudo_random(1)
    with pytest.raises(YubiHsmDeviceError) as caught:
        session.list_objects()
    assert caught.value.code == ERROR.AUTHENTICATION_FAILED


def test_a_corrupted_reply_fails_its_mac(stand: Stand) -> None:
    session = stand.session()
    stand.link.replan(plan(do="corrupt-reply", commands=RANDOM))
    with pytest.raises(YubiHsmInvalidResponseError):
        session.get_pseudo_random(1)


def test_lost_sessions(stand: Stand) -> None:
    first, second = stand.session(), stand.session()
    stand.link.replan(plan(do="lose-sessions", commands=RANDOM))
    for session in (first, second):
        with pytest.raises(YubiHsmDeviceError) as caught:
            session.get_pseudo_random(1)
        assert caught.value.code == ERROR.INVALID_SESSION
    assert stand.session().sid == 0


def test_a_reboot_takes_its_time_and_leaves_a_line(stand: Stand) -> None:
    generate(stand)
    session = stand.session()
    lines = len(stand.device.log)
    stand.link.replan(plan(do="reboot", seconds=5, commands=RANDOM))
    with pytest.raises(YubiHsmConnectionError):
        session.get_pseudo_random(1)
    assert not stand.link.present
    with pytest.raises(YubiHsmConnectionError):
        stand.connect()
    stand.clock.now += 5
    assert stand.link.present
    with stand.session() as again:
        assert again.sid == 0
        assert len(again.list_objects(object_type=OBJECT.HMAC_KEY)) == 1
        boots = [one for one in again.get_log_entries().entries if one.command == 0]
    assert len(stand.device.log) == lines + 1
    assert len(boots) == 2


def test_out_of_reach_for_a_while_sessions_last(stand: Stand) -> None:
    session = stand.session()
    stand.link.replan(plan(do="unreachable", seconds=5, commands=RANDOM))
    for _ in range(3):
        with pytest.raises(YubiHsmConnectionError):
            session.get_pseudo_random(1)
    stand.clock.now += 5
    assert len(session.get_pseudo_random(1)) == 1


def test_another_plan_ends_an_absence_and_a_delay(stand: Stand) -> None:
    session = stand.session()
    stand.link.replan(plan(do="unreachable", seconds=500, commands=RANDOM))
    with pytest.raises(YubiHsmConnectionError):
        session.get_pseudo_random(1)
    stand.link.replan(plan(do="delay", seconds=60, commands=RANDOM))
    waiting = threading.Thread(target=session.get_pseudo_random, args=(1,))
    begun = time.monotonic()
    waiting.start()
    while not stand.link.plan.faults[0].done:
        time.sleep(0.001)
    stand.link.replan(Plan())
    waiting.join(timeout=10)
    assert not waiting.is_alive()
    assert time.monotonic() - begun < 10


def test_a_delay_delays(stand: Stand) -> None:
    session = stand.session()
    stand.link.replan(plan(do="delay", seconds=0.05, commands=RANDOM))
    begun = time.monotonic()
    session.get_pseudo_random(1)
    assert time.monotonic() - begun >= 0.05


def test_full_log_and_full_storage_concern_only_what_needs_room(stand: Stand) -> None:
    stand.link.replan(plan(do="log-full", times=0))
    session = stand.session()
    with pytest.raises(YubiHsmDeviceError) as caught:
        session.get_pseudo_random(1)
    assert caught.value.code == ERROR.LOG_FULL
    session.get_log_entries()
    session.close()
    stand.link.replan(plan(do="storage-full", times=0))
    session = stand.session()
    session.get_pseudo_random(1)
    with pytest.raises(YubiHsmDeviceError) as caught:
        HmacKey.generate(session, 5, "k", 1, CAPABILITY.NONE, ALGORITHM.HMAC_SHA1)
    assert caught.value.code == ERROR.STORAGE_FAILED


@given(st.integers(0, 4), st.integers(1, 4), st.integers(0, 4))
def test_when_a_fault_is_due(after: int, every: int, times: int) -> None:
    one = Plan([Fault(Action.ERROR, after=after, every=every, times=times)])
    hits = [turn for turn in range(1, 40) if one.meet(Command.ECHO)]
    expected = [turn for turn in range(1, 40) if turn > after and (turn - after) % every == 0]
    assert hits == (expected[:times] if times else expected)


def test_chances_repeat_with_their_seed() -> None:
    def rolls(seed: int) -> list[bool]:
        one = Plan([Fault(Action.ERROR, times=0, chance=0.5)], seed)
        return [bool(one.meet(Command.ECHO)) for _ in range(64)]

    assert rolls(1) == rolls(1) != rolls(2)
    assert 10 < sum(rolls(1)) < 54


@st.composite
def written(draw: st.DrawFn) -> dict[str, Any]:
    """A fault as people write it."""
    do = draw(st.sampled_from(Action))
    fault: dict[str, Any] = {"do": do.value}
    if do is Action.ERROR:
        fault["code"] = draw(st.sampled_from(ErrorCode)).name
    if do in TIMED:
        fault["seconds"] = draw(st.floats(0, 100))
    return fault | draw(
        st.fixed_dictionaries(
            {},
            optional={
                "commands": st.lists(st.sampled_from([one.name for one in Command]), unique=True, min_size=1),
                "after": st.integers(0, 9),
                "every": st.integers(1, 9),
                "times": st.integers(0, 9),
                "chance": st.floats(0, 1),
            },
        )
    )


@given(st.lists(written(), max_size=4), st.integers(0, 99))
def test_plans_describe_themselves_as_they_were_written(faults: list[dict[str, Any]], seed: int) -> None:
    told = json.loads(read_json(json.dumps({"seed": seed, "faults": faults})).describe())
    assert told["seed"] == seed
    for fault, back in zip(faults, told["faults"], strict=True):
        for name, value in fault.items():
            assert back[name] == (sorted(value) if name == "commands" else value)
        assert (back["seen"], back["done"]) == (0, 0)


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ([], "the plan must be a table"),
        ({"fault": []}, "the plan: `fault` is unknown; known are faults, seed"),
        ({"faults": "x"}, "`faults` must be a list"),
        ({"faults": [1]}, "fault 1 must be a table"),
        ({"faults": [{"do": "drop"}]}, "fault 1: `do` must be one of drop-request, drop-reply,"),
        ({"faults": [{}]}, "fault 1: `do` must be one of"),
        ({"faults": [{"do": "reboot", "second": 1}]}, "fault 1: `second` is unknown"),
        ({"faults": [{"do": "log-full", "seconds": 1}]}, "fault 1: `seconds` means nothing to log-full"),
        ({"faults": [{"do": "error"}]}, "`code` belongs to `do: error`"),
        ({"faults": [{"do": "delay", "code": "OK"}]}, "`code` belongs to `do: error`"),
        ({"faults": [{"do": "error", "code": 7}]}, "`code` must be one of OK, INVALID_COMMAND"),
        ({"faults": [{"do": "delay", "seconds": -1}]}, "`seconds` must be a number from 0 to 2147483648"),
        ({"faults": [{"do": "error", "code": []}]}, "`code` must be one of OK, INVALID_COMMAND"),
        ({"faults": [{"do": "delay", "seconds": 10**400}]}, "`seconds` must be a number from 0 to 2147483648"),
        ({"faults": [{"do": "delay", "seconds": float("nan")}]}, "`seconds` must be a number"),
        ({"faults": [{"do": "delay", "seconds": "1"}]}, "`seconds` must be a number"),
        ({"faults": [{"do": "delay", "chance": 2}]}, "`chance` must be between 0 and 1"),
        ({"faults": [{"do": "delay", "every": 0}]}, "`every` must be a whole number, at least 1"),
        ({"faults": [{"do": "delay", "times": True}]}, "`times` must be a whole number"),
        ({"faults": [{"do": "delay", "commands": "ECHO"}]}, "`commands` must be a list of names"),
        ({"faults": [{"do": "delay"}, {"do": "delay", "commands": ["SIGN"]}]}, "fault 2: there is no command SIGN"),
    ],
)
def test_a_bad_plan_is_told_what_is_wrong(tree: object, sentence: str) -> None:
    with pytest.raises(PlanError) as caught:
        read(tree)
    assert sentence in str(caught.value)


def test_plans_are_json_or_toml() -> None:
    text = '[[faults]]\ndo = "delay"\nseconds = 0.5\ncommands = ["ECHO"]\n'
    assert read_toml(text).faults == [Fault(Action.DELAY, frozenset({COMMAND.ECHO}), seconds=0.5)]
    for reader in (read_toml, read_json):
        with pytest.raises(PlanError, match=r"this is no (TOML|JSON)"):
            reader("{]")
    with pytest.raises(PlanError, match="no JSON"):
        read_json(b"\xff")


@pytest.mark.parametrize("value", ["[" * 20_000, "9" * 5000])
def test_plans_that_no_reader_takes_are_refused(value: str) -> None:
    for reader, text in ((read_json, f'{{"seed": {value}'), (read_toml, f"seed = {value}")):
        with pytest.raises(PlanError, match=r"this is no (TOML|JSON)"):
            reader(text)
