"""Reads the lock files, and what of them is installed. Imports nothing of openk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final, cast

from cyclonedx.spdx import is_expression
from packaging.markers import Marker
from packaging.utils import canonicalize_name

HERE: Final = Path(__file__).parent
_ENTRY: Final = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;]+)(\s*;\s*(?P<marker>.+))?")
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_CLASSIFIERS: Final = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
}
_UNTOLD: Final = {
    "atheris": "Apache-2.0",  # the file LICENSE in its wheel
    "cedarpy": "Apache-2.0",  # likewise
    "pynvim": "Apache-2.0",  # likewise; its metadata say "Apache"
}
"""Licences of packages whose metadata tell none that is an SPDX expression."""


class LockError(Exception):
    """The lock file has a line that pip would not take as openk means it; the text names it."""


@dataclass(frozen=True, slots=True)
class Locked:
    """`hashes`: SHA-256, in hex, of every file of this version that may be installed."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    @property
    def here(self) -> bool:
        """Whether it is installed on this platform."""
        return not self.marker or Marker(self.marker).evaluate()


def read_lock(path: Path) -> Iterator[Locked]:
    """Each entry. Raises LockError for a line that is no pinned entry with hashes: an option, a URL, a range."""
    for line in path.read_text("utf-8").replace("\\\n", " ").splitlines():
        words = line.partition("#")[0].strip()
        if not words:
            continue
        found = _ENTRY.fullmatch(_HASH.sub("", words).strip())
        hashes = tuple(_HASH.findall(words))
        if found is None:
            raise LockError(f"{path.name}: {words[:60]!r} is not NAME==VERSION with hashes: run requirements/lock")
        if not hashes:
            raise LockError(f"{path.name}: {found['name']} has no hash: run requirements/lock")
        yield Locked(canonicalize_name(found["name"]), found["version"], found["marker"] or "", hashes)


def installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def license_of(name: str, found: Distribution) -> str:
    """An SPDX expression; empty where nothing tells it."""
    metadata = cast("Message", found.metadata)
    told = str(metadata.get("License-Expression") or metadata.get("License") or "")
    if told and "\n" not in told and is_expression(told):
        return told
    classifiers = metadata.get_all("Classifier") or []
    known = [_CLASSIFIERS[one] for one in classifiers if one in _CLASSIFIERS]
    return _UNTOLD.get(name) or " OR ".join(known)

