"""A wrong, empty or missing PIN; an absent, uninitialised, doubled or tampered token: each named, none harmful."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from openk_hsm.dialling import Limits
from openk_hsm.errors import HsmError, TokenMissing, TokenUninitialised, Untrusted, WrongPin
from openk_hsm.group import GroupLane
from openk_hsm.lane import WorkerLane
from openk_hsm.lane_health import LaneState
from tests.support.tokens import MODULE, URI, Token, answer, lane_over, run_cli, start_worker, worker

PROBE = """
import sys, pkcs11
from pkcs11 import TokenFlag
token = pkcs11.lib(sys.argv[1]).get_token(token_label="openk-dev")
print(int(bool(token.flags & TokenFlag.USER_PIN_COUNT_LOW)))
"""
TAMPER = """
import sys, pkcs11
from pkcs11 import Attribute, KeyType
token = pkcs11.lib(sys.argv[1]).get_token(token_label="openk-dev")
with token.open(rw=True, user_pin=open(sys.argv[2]).read().strip()) as session:
    name = {Attribute.LABEL: "openk-root-mac", Attribute.ID: b"openk-root-mac"}
    if sys.argv[3] != "double":
        for key in list(session.get_objects(name)):
            key.destroy()
    template = {Attribute.TOKEN: True, Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False,
                Attribute.MODIFIABLE: False, Attribute.COPYABLE: False, Attribute.SIGN: True, Attribute.VERIFY: False,
                Attribute.ENCRYPT: False, Attribute.DECRYPT: False, Attribute.WRAP: False, Attribute.UNWRAP: False,
                Attribute.DERIVE: False}
    change = {"extractable": {Attribute.EXTRACTABLE: True}, "copyable": {Attribute.COPYABLE: True},
              "modifiable": {Attribute.MODIFIABLE: True}, "insensitive": {Attribute.SENSITIVE: False},
              "derives": {Attribute.DERIVE: True}, "short": {}, "double": {}, "good": {}}[sys.argv[3]]
    bits = 128 if sys.argv[3] == "short" else 256
    session.generate_key(KeyType.GENERIC_SECRET, bits, template={**name, **template, **change})
"""


def script(code: str, token: Token, *arguments: str) -> str:
    """Python on the token, in its own process."""
    command = [sys.executable, "-c", code, MODULE, *arguments]
    done = subprocess.run(command, env=token.environment, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


async def refusal(token: Token, socket: Path, pin_file: Path | None = None, uri: str = URI) -> HsmError:
    """What a lane hears of a worker that cannot serve."""
    with worker(uri, socket, pin_file or token.pin_file, token.environment):
        async with lane_over([socket], limits=Limits(handoff_bytes=64 << 10, breaker=0.4)) as lane:
            with trio.fail_after(5):
                while True:
                    with pytest.raises(HsmError) as refused:
                        await lane.ready()
                    if not str(refused.value).startswith("no worker"):  # a slow machine: the breaker was first
                        return refused.value
                    await trio.sleep(0.01)


async def test_a_wrong_pin_is_tried_exactly_once_and_latches(token: Token, tmp_path: Path) -> None:
    wrong, right = tmp_path / "wrong", token.pin_file
    wrong.write_text("9999\n")
    sockets = [tmp_path / "s" / str(index) for index in range(3)]
    sockets[0].parent.mkdir()
    assert script(PROBE, token) == "0"
    started = [start_worker(URI, socket, wrong, token.environment) for socket in sockets]  # all at once, three tries?
    try:
        async with lane_over(sockets, limits=Limits(handoff_bytes=64 << 10)) as lane:
            with trio.fail_after(5), pytest.raises(WrongPin):
                await lane.ready()
            assert lane.state is LaneState.LATCHED
            pending = lane.info()
            with pytest.raises(WrongPin):
                await answer(pending)
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert len(list(sockets[0].parent.glob("pin-*.latch"))) == 1
    # Not even the right PIN is tried while the latch is set: the next login would clear the token's own count.
    assert script(PROBE, token) == "1"
    with worker(URI, sockets[0], right, token.environment):
        async with lane_over([sockets[0]], limits=Limits(handoff_bytes=64 << 10)) as lane:
            with trio.fail_after(5), pytest.raises(WrongPin):
                await lane.ready()
    assert script(PROBE, token) == "1"
    assert "cleared" in run_cli("unlatch", "--uri", URI, "--state", str(sockets[0].parent))
    with worker(URI, sockets[0], right, token.environment):
        async with lane_over([sockets[0]], limits=Limits(handoff_bytes=64 << 10)) as lane:
            with trio.fail_after(5):
                await lane.ready()
    assert script(PROBE, token) == "0"


async def test_clearing_the_latch_ends_the_worker_that_waits_for_it(token: Token, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text("wrong")
    with worker(URI, tmp_path / "s", pin, token.environment) as process:
        assert process.poll() is None
        run_cli("unlatch", "--uri", URI, "--state", str(tmp_path))
        assert await trio.to_thread.run_sync(process.wait) == 75  # and a monitor starts it again


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n", b"1" * 2000])
async def test_an_empty_or_endless_pin_is_not_tried(token: Token, tmp_path: Path, content: bytes) -> None:
    pin = tmp_path / "pin"
    pin.write_bytes(content)
    error = await refusal(token, tmp_path / "s", pin)
    assert isinstance(error, WrongPin)
    assert not list(tmp_path.glob("*.latch"))  # noqa: ASYNC240
    assert script(PROBE, token) == "0"


async def test_a_missing_pin_file_says_so(token: Token, tmp_path: Path) -> None:
    error = await refusal(token, tmp_path / "s", tmp_path / "none")
    assert isinstance(error, WrongPin)
    assert "cannot be read" in str(error)


async def test_a_missing_token_is_named_with_what_is_there(token: Token, tmp_path: Path) -> None:
    error = await refusal(token, tmp_path / "s", uri=f"pkcs11:token=nothing?module-path={MODULE}")
    assert isinstance(error, TokenMissing)
    assert "'openk-dev'" in str(error)


async def test_a_token_without_root_keys_says_init(token: Token, tmp_path: Path) -> None:
    folder = token.folder / "tokens"
    shutil.rmtree(folder)
    folder.mkdir()
    script_environment = token.environment
    command = ["softhsm2-util", "--init-token", "--free", "--label", "openk-dev", "--so-pin", "12345678", "--pin"]
    subprocess.run(  # noqa: ASYNC221
        [*command, token.pin_file.read_text().strip()], env=script_environment, check=True, capture_output=True
    )
    error = await refusal(token, tmp_path / "s")
    assert isinstance(error, TokenUninitialised)
    assert "openk-hsm init" in str(error)
    shown = run_cli(
        "init",
        "--uri",
        URI,
        "--pin-file",
        str(token.pin_file),
        "--state",
        str(tmp_path),
        environment=script_environment,
    )
    assert "openk-audit" in shown
    again = run_cli(
        "init",
        "--uri",
        URI,
        "--pin-file",
        str(token.pin_file),
        "--state",
        str(tmp_path),
        environment=script_environment,
        status=1,
    )
    assert "nothing was changed" in again


async def test_an_uninitialised_module_has_no_token(token: Token, tmp_path: Path) -> None:
    shutil.rmtree(token.folder / "tokens")
    (token.folder / "tokens").mkdir()
    error = await refusal(token, tmp_path / "s")
    assert error.code in {"hsm.token_missing", "hsm.token_uninitialised"}


async def test_two_tokens_of_one_name_are_told_apart_by_serial(token: Token, tmp_path: Path) -> None:
    command = [
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        "openk-dev",
        "--so-pin",
        "12345678",
        "--pin",
        "1234",
    ]
    subprocess.run(command, env=token.environment, check=True, capture_output=True)  # noqa: ASYNC221
    error = await refusal(token, tmp_path / "s")
    assert isinstance(error, TokenMissing)
    assert "add serial=" in str(error)


@pytest.mark.parametrize(
    ("path", "says"),
    [("/none/such.so", "cannot load"), ("/usr/lib/x86_64-linux-gnu/libc.so.6", "not a PKCS#11 module")],
)
async def test_a_module_that_is_none_is_named(token: Token, tmp_path: Path, path: str, says: str) -> None:
    error = await refusal(token, tmp_path / "s", uri=f"pkcs11:token=x?module-path={path}")
    assert says in str(error)


@pytest.mark.parametrize(
    "change", ["extractable", "copyable", "modifiable", "insensitive", "derives", "short", "double"]
)
async def test_a_root_key_that_is_not_as_openk_makes_it_is_not_trusted(
    token: Token, tmp_path: Path, change: str
) -> None:
    script(TAMPER, token, str(token.pin_file), change)
    assert isinstance(await refusal(token, tmp_path / "s"), Untrusted)


async def test_the_tampering_itself_is_sound(token: Token, tmp_path: Path) -> None:
    """The same procedure without a change gives a key that is trusted: the tests above refuse for their reason."""
    script(TAMPER, token, str(token.pin_file), "good")
    with worker(URI, tmp_path / "s", token.pin_file, token.environment):
        async with lane_over([tmp_path / "s"], limits=Limits(handoff_bytes=64 << 10)) as lane:
            with trio.fail_after(5):
                await lane.ready()


async def test_a_worker_serves_the_next_daemon(token: Token, tmp_path: Path) -> None:
    with worker(URI, tmp_path / "s", token.pin_file, token.environment) as process:
        for _ in range(3):
            async with lane_over([tmp_path / "s"], limits=Limits(handoff_bytes=64 << 10)) as lane:
                with trio.fail_after(5):
                    await lane.ready()
        assert process.poll() is None


def test_the_software_hsm_is_refused_unless_allowed(tmp_path: Path) -> None:
    said = run_cli("serve", "--uri", "software:", "--socket", str(tmp_path / "s"), "--pin-file", "/dev/null", status=1)
    assert "--allow-software" in said


def test_a_pin_in_the_uri_is_refused_and_not_repeated(tmp_path: Path) -> None:
    uri = f"pkcs11:token=x?module-path={MODULE}&pin-value=hunter2"
    said = run_cli("serve", "--uri", uri, "--socket", str(tmp_path / "s"), status=1)
    assert "--pin-file" in said
    assert "hunter2" not in said


def test_dev_token_can_be_run_again_and_in_a_path_with_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    run_cli("dev-token", "--dir", str(folder))
    pin = (folder / "pin").read_bytes()
    run_cli("dev-token", "--dir", str(folder))
    assert (folder / "pin").read_bytes() == pin
    assert (folder / "pin").stat().st_mode & 0o777 == 0o600
    environment = {**os.environ, "SOFTHSM2_CONF": str(folder / "softhsm2.conf")}
    assert run_cli("tokens", environment=environment).count("openk-dev") == 1


async def test_a_stop_signal_ends_a_worker(token: Token, tmp_path: Path) -> None:
    with worker(URI, tmp_path / "s", token.pin_file, token.environment) as process:
        process.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(process.wait) in {0, -signal.SIGTERM}


def test_tokens_made_from_one_file_have_the_same_root_keys(tmp_path: Path) -> None:
    """For trying groups: different serials and PINs, one identity of a group."""
    seed = tmp_path / "seed"
    seed.write_bytes(b"sixteen bytes or more, and no secret")
    sockets: list[Path] = []
    with ExitStack() as stack:
        for name in ("left", "right"):
            run_cli("dev-token", "--dir", str(tmp_path / name), "--roots", str(seed))
            run_cli("dev-token", "--dir", str(tmp_path / name), "--roots", str(seed))  # again: nothing
            token = Token(tmp_path / name)
            sockets.append(token.folder / "s")
            stack.enter_context(worker(token.uri, sockets[-1], token.pin_file, token.environment))

        async def serve_as_a_group() -> None:
            members = [WorkerLane(path.parent.name, [str(path)]) for path in sockets]
            group = GroupLane("main", members)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(group.run)
                with trio.fail_after(10):
                    await group.gathered(10)
                assert len(group.identities) == 2
                assert [member.state for member in members] == [LaneState.UP] * 2
                nursery.cancel_scope.cancel()

        trio.run(serve_as_a_group)


def test_a_short_file_makes_no_root_keys(tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    seed.write_bytes(b"short")
    assert "fewer than 16" in run_cli("dev-token", "--dir", str(tmp_path / "t"), "--roots", str(seed), status=1)
