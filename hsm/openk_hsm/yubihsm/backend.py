"""The YubiHSM 2 back end: one device, one session, one thread.

data       WRAP DATA, the context's digest inside (hot.py)
mac        SIGN HMAC        signatures, decryption, agreement: the device's commands, one each
vault keys objects on the device (`data` and `mac`); nothing is wrapped, nothing imported
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from yubihsm.backends import YhsmBackend
from yubihsm.defs import CAPABILITY, COMMAND, OBJECT

from openk_hsm import journal
from openk_hsm.errors import HsmError, TokenUninitialised, Unsupported
from openk_hsm.roots import AUDIT_KEY, ROOT_MAC, name_of, roots
from openk_hsm.seam import Algorithm, Generated, KeySpec, Notice, ObjectInfo, TokenInfo
from openk_hsm.specs import OPCODES
from openk_hsm.uri import HsmUri
from openk_hsm.yubihsm.device import Device
from openk_hsm.yubihsm.holder import Holder
from openk_hsm.yubihsm.hot import Hot
from openk_hsm.yubihsm.kinds import DELEGATED_NEEDS, KINDS, SESSION_NEEDS, capability_names, mechanisms_of
from openk_hsm.yubihsm.log import DeviceLog
from openk_hsm.yubihsm.login import Credentials
from openk_hsm.yubihsm.objects import Found, Objects, supported
from openk_hsm.yubihsm.transport import open_transport

IDENTITY_QUESTION: Final = b"openk.token-identity.1"
_ID: Final = struct.Struct(">H")


class YubiHsmBackend:
    """`openk_hsm.seam.Backend` on a YubiHSM 2. `state`: a folder for the device's log; one process uses it."""

    def __init__(self, uri: HsmUri, *, roots: bool = True, state: Path | None = None) -> None:
        """`roots` False: for `openk-hsm init`, a device without root keys opens."""
        self._uri = uri
        self._roots = roots
        self._state = state
        self._transport: YhsmBackend | None = None
        self._holder: Holder | None = None
        self._device: Device | None = None

    def load(self) -> None:
        """Find the device, where it is on USB, with the libraries that takes: later the process may reach less."""
        if self._transport is None:
            self._transport = open_transport(self._uri)

    def log_in(self, pin: Callable[[], memoryview]) -> Device:
        """Connect and open a session. `open` does it when nobody did. Raises WrongPin after exactly one try."""
        self.load()
        transport, self._transport = self._transport, None
        if transport is None:
            raise HsmError("no transport to the YubiHSM")
        try:
            device = Device(transport)
        except HsmError:
            transport.close()
            raise
        try:
            if self._state is not None:
                self._holder = Holder(self._state, device.serial)
            path = self._uri.path
            credentials = Credentials(
                int(path["auth-key"]),
                pin(),
                asymmetric=path["authentication"] == "asymmetric",
                device_key=path.get("device-key", ""),
            )
            self._log: DeviceLog = device.log_in(credentials, self._state)
            self._objects = Objects(device, int(path["domain"]))
            self._check_authentication_key()
            self._check_log(device)
        except BaseException:
            device.close()
            self._let_go()
            raise
        self._device = device
        return device

    def _check_authentication_key(self) -> None:
        """Raises HsmError that names what the key lacks: a capability, or the domain."""
        number = int(self._uri.path["auth-key"])
        found = self._objects.describe(number, OBJECT.AUTHENTICATION_KEY)
        domain = int(self._uri.path["domain"])
        if not found.domains & 1 << (domain - 1):
            theirs = ", ".join(str(at + 1) for at in range(16) if found.domains & 1 << at)
            raise HsmError(f"authentication key {number} is in domain {theirs}, not in {domain}: change ?domain=")
        for have, needs, what in (
            (found.capabilities, SESSION_NEEDS, "capabilities"),
            (found.delegated, DELEGATED_NEEDS, "delegated capabilities"),
        ):
            lacks = CAPABILITY(needs & ~have)
            if lacks:
                said = " ".join(capability_names(lacks))
                raise HsmError(f"authentication key {number} lacks {what}: {said}. docs/hsm.md has the whole list")
        _warn_of_power(found)

    def _check_log(self, device: Device) -> None:
        if not self._log.follows:
            journal.log("warning", "device log off", text="this YubiHSM logs no commands: who uses it is not noticed")
        elif device.audit_forced():
            journal.log("info", "device log forced")

    def open(self, region: memoryview, address: int, pin: Callable[[], memoryview]) -> TokenInfo:  # noqa: ARG002 - bytes go through the session
        if self._device is None:
            self.log_in(pin)
        self._hot = Hot(self._opened, region)
        self.random = self._hot.random
        self.mac = self._hot.mac
        self.sign = self._hot.sign
        self.encrypt = self._hot.encrypt
        self.decrypt = self._hot.decrypt
        self.agree = self._hot.agree
        try:
            return self._open_roots() if self._roots else self._info(b"", b"")
        except HsmError:
            self.close()  # a session is one of 16
            raise

    def _open_roots(self) -> TokenInfo:
        for root in roots(Algorithm.AES_256_CCM, Algorithm.ED25519):
            label, id_ = name_of(root)
            number = self._objects.only(root.spec, label, id_)
            if number is None:
                raise TokenUninitialised(f"the YubiHSM {self._opened.serial} has no {label}: run `openk-hsm init`")
            self._hot.keys[root.slot] = (number, root.spec)
        mac, _ = self._hot.keys[ROOT_MAC.slot]
        answer = bytes(self._opened.ask(COMMAND.SIGN_HMAC, _ID.pack(mac), IDENTITY_QUESTION))
        audit, spec = self._hot.keys[AUDIT_KEY.slot]
        return self._info(answer, self._objects.public_key(audit, spec) or b"")

    @property
    def _opened(self) -> Device:
        if self._device is None:
            raise HsmError("the YubiHSM is not open")
        return self._device

    def _info(self, answer: bytes, audit_public: bytes) -> TokenInfo:
        device = self._opened
        model = device.info.part_number or "YubiHSM 2"
        named = f"{device.serial}\x00YubiHSM 2\x00".encode()
        able = supported(device.algorithms())
        usable = {mechanism for spec in able for mechanism in mechanisms_of(spec)}
        return TokenInfo(
            backend="yubihsm",
            label=f"YubiHSM {device.serial}",
            serial=device.serial,
            model=model,
            firmware=device.firmware,
            identity=hashlib.sha256(named + answer).digest(),
            resident=able,
            wrapped=frozenset(),
            mechanisms=tuple(sorted(mechanism.name for mechanism in usable & set(OPCODES))),
            audit_public=audit_public,
            chosen={
                "data": "WRAP DATA, context inside",
                "key objects": "none: keys are resident or cached",
                "audit": "Ed25519",
            },
            data=Algorithm.AES_256_CCM,
            resident_vaults=True,
        )

    # --- keys ---

    def load_resident(self, slot: int, spec: KeySpec, label: str, id_: bytes) -> None:
        if spec not in KINDS:
            raise _unsupported(spec)
        number = self._objects.only(spec, label, id_)
        if number is None:
            raise HsmError(f"the YubiHSM has no key named {label!r}", device="YUBIHSM_OBJECT_NOT_FOUND")
        self._hot.keys[slot] = (number, spec)

    def load_wrapped(self, slot: int, spec: KeySpec, kw: int, mac: int, context: bytes, blob: bytes) -> None:  # noqa: ARG002 - the seam's
        raise _no_wrapping()

    def unload(self, slot: int) -> None:
        self._hot.keys.pop(slot, None)

    def generate(self, spec: KeySpec, kw: int, mac: int, context: bytes) -> Generated:  # noqa: ARG002 - the seam's
        raise _no_wrapping()

    def generate_resident(self, spec: KeySpec, label: str, id_: bytes) -> Generated:
        if spec not in KINDS:
            raise _unsupported(spec)
        return Generated(None, self._objects.make(spec, label, id_)[1])

    def destroy_resident(self, label: str, id_: bytes) -> bool:
        gone = self._objects.destroy(label, id_)
        for slot in [slot for slot, (number, _) in self._hot.keys.items() if number in gone]:
            self.unload(slot)
        return bool(gone)

    def objects(self) -> Sequence[ObjectInfo]:
        return self._objects.listed()

    def attest(self, label: str, id_: bytes) -> Sequence[bytes]:
        return self._objects.attest(label, id_)

    # --- the device ---

    def notices(self, after: int) -> Sequence[Notice]:
        """Drains the log too, which keeps the session alive."""
        self._opened.drain()
        return self._log.notices(after)

    def health(self) -> Mapping[str, str]:
        device = self._opened
        device.drain()
        room = self._objects.room()
        return {
            "backend": "yubihsm",
            "token": device.serial,
            "loaded": str(len(self._hot.keys)),
            "objects": f"{room.objects - room.objects_free} of {room.objects}",
            "pages free": str(room.pages_free),
            "sessions opened": str(device.sessions),
            "log": "followed" if self._log.follows else "off",
            "log entries seen": str(self._log.seen),
            "alarms": str(sum(notice.alarm for notice in self._log.notices(0))),
        }

    def close(self) -> None:
        """End the session. Idempotent."""
        if self._device is not None:
            self._device.close()
            self._device = None
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        self._let_go()

    def _let_go(self) -> None:
        if self._holder is not None:
            self._holder.close()
            self._holder = None


def _unsupported(spec: KeySpec) -> Unsupported:
    return Unsupported(f"a YubiHSM has no {spec.algorithm.value} for {spec.purpose.value}")


def _no_wrapping() -> Unsupported:
    return Unsupported(
        "a YubiHSM keeps no wrapped keys: importing one for each use would wear its flash. Use protection `resident`, "
        "or `cached`"
    )


def _warn_of_power(found: Found) -> None:
    """openk's key should not be able to do what openk never does: above all, to let keys out."""
    excess = CAPABILITY(found.capabilities & _NEVER)
    if excess:
        said = " ".join(capability_names(excess))
        journal.log("warning", "authentication key too powerful", key=found.number, capabilities=said)


_NEVER: Final = (
    CAPABILITY.EXPORT_WRAPPED
    | CAPABILITY.IMPORT_WRAPPED
    | CAPABILITY.PUT_WRAP_KEY
    | CAPABILITY.PUT_AUTHENTICATION_KEY
    | CAPABILITY.RESET_DEVICE
    | CAPABILITY.SET_OPTION
)
