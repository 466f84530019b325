"""What an operator types into Yubico's own shell before `openk-hsm init`: an authentication key that may do what openk
does and nothing else, and the device's log."""

from __future__ import annotations

from typing import Final

from yubihsm.defs import CAPABILITY, COMMAND

from openk_hsm.uri import HsmUri
from openk_hsm.yubihsm.kinds import ATTESTATION_NEEDS, DELEGATED_NEEDS, SESSION_NEEDS, capability_names

_UNREMARKABLE: Final = frozenset(
    {
        COMMAND.ECHO,
        COMMAND.SESSION_MESSAGE,
        COMMAND.DEVICE_INFO,
        COMMAND.GET_DEVICE_PUBLIC_KEY,
        COMMAND.CLOSE_SESSION,
        COMMAND.GET_STORAGE_INFO,
        COMMAND.LIST_OBJECTS,
        COMMAND.GET_LOG_ENTRIES,
        COMMAND.GET_OBJECT_INFO,
        COMMAND.GET_OPTION,
        COMMAND.GET_PSEUDO_RANDOM,
        COMMAND.GET_PUBLIC_KEY,
        COMMAND.BLINK_DEVICE,
        COMMAND.ERROR,
    }
)
AUDITED: Final = tuple(command for command in COMMAND if command not in _UNREMARKABLE)
"""Whatever opens a session, uses, makes, moves or destroys a key, or changes the device."""


def commands(uri: HsmUri) -> str:
    """Lines for a shell. The password is asked for, not written down."""
    key, domain = uri.path["auth-key"], uri.path["domain"]
    shell = "yubihsm-shell"
    if "host" in uri.path:
        shell += f" -C http://{uri.path['host']}:{uri.path['port']}"
    audited = "".join(f"{command:02x}01" for command in AUDITED)
    return "\n".join(
        (
            f"{shell} -a put-authentication-key -i {key} -l openk -d {domain} \\",
            f"  -c {_joined(SESSION_NEEDS | ATTESTATION_NEEDS)} \\",
            f"  --delegated={_joined(DELEGATED_NEEDS)}",
            f"{shell} -a put-option --opt-name=command-audit \\",
            f"  --opt-value={audited}",
            f"{shell} -a put-option --opt-name=force-audit --opt-value=01",
            "",
        )
    )


def _joined(capabilities: CAPABILITY) -> str:
    return ",".join(capability_names(capabilities))
