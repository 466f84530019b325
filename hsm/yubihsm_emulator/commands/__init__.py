"""The table of commands: one module a family, each with its rows in `COMMANDS`. Handlers are plain functions."""

from collections.abc import Mapping
from typing import Final

from yubihsm_emulator.codes import Command
from yubihsm_emulator.commands import (
    asymmetric,
    attestation,
    audit,
    authentication,
    device,
    hmac_keys,
    objects,
    opaque,
    otp,
    rsa_wrap,
    ssh,
    symmetric,
    wrap,
)
from yubihsm_emulator.spec import Spec

_ROWS: Final[dict[Command, Spec]] = {
    **audit.COMMANDS,
    **authentication.COMMANDS,
    **device.COMMANDS,
    **objects.COMMANDS,
    **opaque.COMMANDS,
    **asymmetric.COMMANDS,
    **attestation.COMMANDS,
    **hmac_keys.COMMANDS,
    **otp.COMMANDS,
    **rsa_wrap.COMMANDS,
    **ssh.COMMANDS,
    **symmetric.COMMANDS,
    **wrap.COMMANDS,
}

TABLE: Final[Mapping[int, Spec]] = {int(command): spec for command, spec in _ROWS.items()}
