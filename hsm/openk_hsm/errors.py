"""What can go wrong below the seam. `code` is a name in the wire's code table (openk.wire.codes)."""

from __future__ import annotations


class HsmError(Exception):
    """An HSM operation failed. The text is for the log, never for clients."""

    code = "hsm.refused"

    def __init__(self, text: str, *, device: str = "", retry_after: float | None = None) -> None:
        super().__init__(text)
        self.device = device  # the device's own code, such as "CKR_DEVICE_ERROR"
        self.retry_after = retry_after  # seconds


class Unavailable(HsmError):
    code = "hsm.unavailable"


class SessionLost(Unavailable):
    """The device forgot our session or what was in it: new sessions are the cure, in the same process."""


class TimedOut(HsmError):
    code = "hsm.timeout"


class Interrupted(HsmError):
    code = "hsm.interrupted"


class WrongPin(HsmError):
    code = "hsm.pin"


class TokenMissing(HsmError):
    code = "hsm.token_missing"


class TokenUninitialised(HsmError):
    code = "hsm.token_uninitialised"


class TokenFull(HsmError):
    code = "hsm.full"


class Busy(HsmError):
    code = "hsm.busy"


class Sealed(HsmError):
    """The workers are logged out, and stay so until an operator unseals."""

    code = "daemon.sealed"


class Untrusted(HsmError):
    """An object's attributes are not what openk set, or two objects match one label and id."""

    code = "hsm.untrusted"


class Diverged(Untrusted):
    """A member of a group has other root keys than the group."""


class Unsupported(HsmError):
    code = "key.unsupported"


class InvalidCiphertext(HsmError):
    """The caller's ciphertext or wrapped blob does not open: never the device's fault."""

    code = "key.ciphertext_invalid"


class InvalidInput(HsmError):
    code = "key.input_invalid"
