"""What an operator does with a token before openkd uses it: root keys, a development token, a look around."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openk_hsm.errors import HsmError, Unsupported
from openk_hsm.latch import Latch
from openk_hsm.pin import PinSource
from openk_hsm.registry import make_backend
from openk_hsm.roots import ROOT_KW, name_of, roots
from openk_hsm.seam import Algorithm, Backend, KeyHandle, TokenInfo
from openk_hsm.uri import parse_uri
from openk_memory.region import Region

SOFTHSM_MODULES: Final = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
)
DEV_LABEL: Final = "openk-dev"
_PIN_CHARACTERS: Final = b"0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a token. `state`: the latch's folder, which commands respect as workers do."""

    uri: str
    pin: PinSource
    state: Path
    software: bool = False


@contextmanager
def opened(access: Access, *, roots: bool) -> Generator[tuple[Backend, TokenInfo]]:
    """A back end that is logged in, closed at the end. Raises HsmError."""
    backend = make_backend(parse_uri(access.uri), roots=roots, software=access.software, state=access.state)
    latch = Latch(access.state, access.uri)
    with Region(4096) as region:
        with latch.guarded(), access.pin.read() as pin:
            info = backend.open(region.view, region.address, lambda: pin)
        try:
            yield backend, info
        finally:
            backend.close()


def create_roots(access: Access, *, complete: bool = False) -> Sequence[KeyHandle]:
    """Make the root keys; those made. Refuses a token that has any, unless `complete` (a run that
    was interrupted): then it makes those that are missing."""
    with opened(access, roots=False) as (backend, info):
        if ROOT_KW.spec not in info.wrapped and not info.resident_vaults:
            raise Unsupported(
                "the token wraps no keys so that they come back as they must be (sensitive, not extractable, for their "
                "use only): openk's vaults cannot live on it. Nothing was made"
            )
        wanted = roots(info.data, info.audit)
        present = {(found.label, found.id) for found in backend.objects()}
        missing = [root for root in wanted if name_of(root) not in present]
        if len(missing) < len(wanted) and not complete:
            have = ", ".join(name_of(root)[0] for root in wanted if root not in missing)
            raise HsmError(
                f"the token has root keys already ({have}); nothing was changed. If an earlier `openk-hsm init` was "
                "interrupted, run it again with --complete"
            )
        for root in missing:
            backend.generate_resident(root.spec, *name_of(root))
    return missing


def softhsm_module() -> str:
    """The path of SoftHSM2's module. Raises HsmError that says how to get it."""
    for path in SOFTHSM_MODULES:
        if Path(path).exists():
            return path
    raise HsmError("SoftHSM2 is not installed: `apt install softhsm2`, or give --module")


def import_known_roots(access: Access, seed: bytes) -> None:
    """Root keys made from `seed`, on a PKCS#11 token that has none: for development. Raises HsmError."""
    from openk_hsm.pkcs11.backend import Pkcs11Backend  # noqa: PLC0415 - vendor code only when used
    from openk_hsm.pkcs11.known_roots import SEED_LEAST, value_of  # noqa: PLC0415

    if len(seed) < SEED_LEAST:
        raise HsmError(f"the file that root keys are made from has fewer than {SEED_LEAST} bytes")
    with opened(access, roots=False) as (backend, info):
        made_of = info.data, info.audit
        if not isinstance(backend, Pkcs11Backend) or made_of != (Algorithm.AES_256_GCM, Algorithm.ED25519):
            raise HsmError("root keys of known value are for PKCS#11 tokens with AES-GCM and Ed25519")
        present = {(found.label, found.id) for found in backend.objects()}
        if any(name_of(root) in present for root in roots(*made_of)):
            raise HsmError("the token has root keys already; nothing was changed")
        for root in roots(*made_of):
            backend.import_root(root, value_of(root, seed))


def make_dev_token(folder: Path, module: str = "", seed: bytes = b"") -> Access:
    """A SoftHSM2 token in `folder` with random PINs and root keys; made once, completed if it was interrupted.

        folder/softhsm2.conf    for SOFTHSM2_CONF (set in this process too)
        folder/tokens/          SoftHSM2's files
        folder/pin, so-pin      0600

    `seed`: make the root keys of a fresh token from that; two tokens of one seed can be a group. Raises HsmError. For
    development: whoever reads the folder has the keys.
    """
    module = module or softhsm_module()
    folder = folder.absolute()
    tokens = folder / "tokens"
    tokens.mkdir(mode=0o700, parents=True, exist_ok=True)
    configuration = folder / "softhsm2.conf"
    text = f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"
    if "\n" in str(folder):
        raise HsmError("the folder's path has a newline, which softhsm2.conf cannot hold")
    if not configuration.exists() or configuration.read_text() != text:
        configuration.write_text(text)
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    for name in ("pin", "so-pin"):
        if not (folder / name).exists():
            _draw_pin(folder / name)
    access = Access(f"pkcs11:token={DEV_LABEL}?module-path={module}", PinSource(file=folder / "pin"), folder)
    fresh = _initialise(access, module, PinSource(file=folder / "so-pin"))
    if fresh and seed:
        import_known_roots(access, seed)
    create_roots(access, complete=True)
    return access


def _initialise(access: Access, module: str, so_source: PinSource) -> bool:
    """Whether that was still to be done."""
    from openk_hsm.pkcs11.discovery import list_tokens, load_module  # noqa: PLC0415 - vendor code only when used
    from openk_hsm.pkcs11.initialise import initialise_token  # noqa: PLC0415

    load_module(module)
    if any(token.initialised and token.user_pin and token.label == DEV_LABEL for token in list_tokens(module)):
        return False
    with so_source.read() as so_pin, access.pin.read() as pin:
        initialise_token(module, DEV_LABEL, so_pin, pin)
    return True


def _draw_pin(path: Path) -> None:
    """24 random hexadecimal digits and a newline, in one step: a half-written PIN would lock us out of our token."""
    with Region(25) as region:
        source = os.open("/dev/urandom", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.readv(source, [region.view[:24]])
        finally:
            os.close(source)
        for index in range(24):
            region.view[index] = _PIN_CHARACTERS[region.view[index] & 15]
        region.view[24] = 0x0A
        fresh = path.with_name(path.name + ".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, region.view)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(path)
