"""The table of commands: one module a family, each with its rows in `COMMANDS`. Handlers are plain functions."""

from typing import Final

from yubihsm_emulator.codes import Command
from yubihsm_emulator.commands import asymmetric, hmac_keys, opaque, otp, rsa_wrap, symmetric, wrap
from yubihsm_emulator.spec import Spec

TABLE: Final[dict[Command, Spec]] = {
    **opaque.COMMANDS,
    **asymmetric.COMMANDS,
    **hmac_keys.COMMANDS,
    **otp.COMMANDS,
    **rsa_wrap.COMMANDS,
    **symmetric.COMMANDS,
    **wrap.COMMANDS,
}
