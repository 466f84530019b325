"""Initialising an empty token (PKCS#11 v3.1, section 5.5.7): for development tokens and ceremonies."""

from __future__ import annotations

import ctypes

from openk_hsm.errors import HsmError
from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.codes import check
from openk_hsm.pkcs11.discovery import list_tokens, load_module
from openk_hsm.pkcs11.module import Ulong

LABEL_BYTES = 32


def initialise_token(module_path: str, label: str, so_pin: memoryview, pin: memoryview) -> None:
    """Make the first uninitialised slot a token of that label. PINs: locked memory, wiped by their owner.

    Raises HsmError when no slot is free, or the label is taken (labels are not unique, and openk wants them so).
    """
    module = load_module(module_path)
    tokens = list_tokens(module_path)
    if any(token.initialised and token.label == label for token in tokens):
        raise HsmError(f"the module has a token named {label!r} already")
    free = [token.slot for token in tokens if not token.initialised]
    if not free:
        raise HsmError("the module has no uninitialised token")
    encoded = label.encode()
    if not encoded or len(encoded) > LABEL_BYTES:
        raise HsmError(f"a token's label has 1 to {LABEL_BYTES} bytes")
    padded = encoded.ljust(LABEL_BYTES)
    check(module.init_token(free[0], _address(so_pin), len(so_pin), padded), "C_InitToken")
    session = Ulong()
    flags = ck.CKF_SERIAL_SESSION | ck.CKF_RW_SESSION
    check(module.open_session(free[0], flags, None, None, ctypes.byref(session)), "C_OpenSession")
    try:
        check(module.login(session, ck.CKU_SO, _address(so_pin), len(so_pin)), "C_Login as security officer")
        check(module.init_pin(session, _address(pin), len(pin)), "C_InitPIN")
    finally:
        module.close_session(session)


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
