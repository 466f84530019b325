import os
import time
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from yubihsm_emulator.codes import ALL_CAPABILITIES, ALL_DOMAINS, Algorithm, ObjectType, Origin
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.log import BOOT, AuditLog
from yubihsm_emulator.objects import LABEL_SIZE, StoredObject
from yubihsm_emulator.options import Audit, Options
from yubihsm_emulator.store import ObjectStore

VERSION: Final = bytes((2, 4, 1))
PART_NUMBER: Final = b"78CLUFX5000P"

Clock = Callable[[], float]
"""Seconds, monotonic."""

Random = Callable[[int], bytes]
"""So many random bytes."""

DEFAULT_KEY: Final = StoredObject(
    ObjectType.AUTHENTICATION_KEY,
    1,
    b"DEFAULT AUTHKEY CHANGE THIS ASAP".ljust(LABEL_SIZE, b"\0"),
    ALL_DOMAINS,
    ALL_CAPABILITIES,
    ALL_CAPABILITIES,
    Algorithm.AES128_YUBICO_AUTHENTICATION,
    0,
    Origin.IMPORTED,
    bytes.fromhex("090b47dbed595654901dee1cc655e420592fd483f759e29909a04c4505d2ce0a"),
)
"""The one object of a device fresh from the factory: PBKDF2 of the well-known password `password`."""


class Device:
    """All that a YubiHSM keeps while it has power, sessions aside. Not safe for threads: one frame at a time.

    serial           u32, for life
    attestation_key  P-256 private scalar (32 bytes, big-endian), for life: the built-in attestation key
    static_key       P-256 private scalar of asymmetric sessions, renewed by a reset
    """

    def __init__(self, serial: int, *, clock: Clock = time.monotonic, random: Random = os.urandom) -> None:
        self.serial = serial
        self.clock = clock
        self.random = random
        self.attestation_key = _new_scalar()
        self._resets = 0
        self.reset()

    def reset(self) -> None:
        """Back to the factory: one object, no options, a log of two entries, another static key."""
        self.static_key = _new_scalar()
        self.options = Options()
        self.log = AuditLog.after_reset(self.random(32))
        self.store = ObjectStore()
        self.store.add(DEFAULT_KEY)
        self._booted = self.clock()
        self._resets += 1

    def boot(self) -> None:
        """Power comes back: a line in the log, or under force-audit and a full log a count; ticks begin anew."""
        self._booted = self.clock()
        if self.log.full and self.options.force_audit is not Audit.OFF:
            self.log.count_boot()
        else:
            self.log.append(BOOT)

    @property
    def version(self) -> tuple[int, int, int, int]:
        """Another value after each change of what the device must remember."""
        return self._resets, self.store.version, self.options.version, self.log.version

    @property
    def tick(self) -> int:
        """Time since power-up in 1/100 s."""
        return int((self.clock() - self._booted) * 100)

    def enabled(self, algorithm: Algorithm) -> None:
        """ALGORITHM DISABLED where an option has switched it off."""
        if algorithm in self.options.disabled:
            raise DeviceError(ErrorCode.ALGORITHM_DISABLED)


def _new_scalar() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value.to_bytes(32, "big")
