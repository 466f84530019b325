"""Back ends by URI scheme. A new back end is one line here (docs/how-to-add-a-back-end.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from openk_hsm.errors import HsmError
from openk_hsm.seam import Backend
from openk_hsm.uri import HsmUri


class Factory(Protocol):
    def __call__(self, uri: HsmUri, *, roots: bool, software: bool, state: Path | None) -> Backend: ...


def make_backend(uri: HsmUri, *, roots: bool = True, software: bool = False, state: Path | None = None) -> Backend:
    """A back end, not open yet. `roots` False: a token without root keys opens. `software`: --dev or tests.
    `state`: a folder for what a back end must remember; without it, it forgets when the process ends.

    Each imports its own vendor code only when it is chosen. Raises HsmError.
    """
    return _FACTORIES[uri.scheme](uri, roots=roots, software=software, state=state)


def _pkcs11(uri: HsmUri, *, roots: bool, software: bool, state: Path | None) -> Backend:  # noqa: ARG001 - one signature for all
    from openk_hsm.pkcs11.backend import Pkcs11Backend  # noqa: PLC0415

    return Pkcs11Backend(uri, roots=roots)


def _software(uri: HsmUri, *, roots: bool, software: bool, state: Path | None) -> Backend:  # noqa: ARG001 - it makes its own roots
    from openk_hsm.software import SoftwareBackend  # noqa: PLC0415

    if not software:
        raise HsmError("the software HSM protects nothing: it is refused without --allow-software")
    keys = uri.path.get("state")
    pin = uri.path.get("pin")
    return SoftwareBackend(
        allow=True,
        pin=None if pin is None else pin.encode(),
        state=None if keys is None else Path(keys),
        hang=uri.path.get("hang", ""),
    )


def _yubihsm(uri: HsmUri, *, roots: bool, software: bool, state: Path | None) -> Backend:  # noqa: ARG001
    from openk_hsm.yubihsm.backend import YubiHsmBackend  # noqa: PLC0415

    return YubiHsmBackend(uri, roots=roots, state=state)


_FACTORIES: dict[str, Factory] = {"pkcs11": _pkcs11, "software": _software, "yubihsm": _yubihsm}
