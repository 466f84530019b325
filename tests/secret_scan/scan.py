"""Look for committed secrets with detect-secrets, and judge what it finds by allowed.toml."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Final

from detect_secrets.core import scan
from detect_secrets.settings import transient_settings

ALLOWED: Final = Path(__file__).parent / "allowed.toml"
_DETECTORS: Final = (
    "ArtifactoryDetector", "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector", "CloudantDetector",
    "DiscordBotTokenDetector", "GitHubTokenDetector", "GitLabTokenDetector", "IbmCloudIamDetector", "IbmCosHmacDetector",
    "JwtTokenDetector", "KeywordDetector", "MailchimpDetector", "NpmDetector", "OpenAIDetector", "PrivateKeyDetector",
    "PypiTokenDetector", "SendGridDetector", "SlackDetector", "SoftlayerDetector", "SquareOAuthDetector", "StripeDetector",
    "TelegramBotTokenDetector", "TwilioKeyDetector",
)  # fmt: skip
SETTINGS: Final = {
    "plugins_used": [
        *({"name": name} for name in _DETECTORS),
        {"name": "Base64HighEntropyString", "limit": 4.5},
        {"name": "HexHighEntropyString", "limit": 3.0},
        {"name": "PinDetector", "path": f"file://{Path(__file__).parent / 'pin.py'}"},
    ],
    # Not among them: the filter for a comment that allows its own line. What is allowed stands in one file, with reasons.
    "filters_used": [
        {"path": f"detect_secrets.filters.heuristic.{name}"}
        for name in (
            "is_indirect_reference", "is_likely_id_string", "is_lock_file", "is_non_text_file",
            "is_not_alphanumeric_string", "is_potential_uuid", "is_prefixed_with_dollar_sign", "is_sequential_string",
            "is_templated_secret",
        )
    ],
}  # fmt: skip
"""Nothing is verified over the network: that filter is not among them either."""
_NAMES: Final = ("*.p12", "*.pfx", "*.jks", "*.keystore", "*.pem", "*.key", "*id_rsa*", "*id_ed25519*", ".env", "*/.env")
"""Files that hold a secret by their name, or none that belongs here."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """`digest`: 12 hexadecimal digits of the SHA-256 of the secret, which is told nowhere."""

    path: str
    kind: str
    digest: str
    line: int
    value: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Allowed:
    """`digests` are empty where every finding of the kind is allowed in the files, or those whose value matches `value`."""

    path: str
    kind: str
    reason: str
    digests: frozenset[str]
    value: str = ""

    def covers(self, finding: Finding) -> bool:
        return (
            fnmatchcase(finding.path, self.path)
            and finding.kind == self.kind
            and (not self.digests or finding.digest in self.digests)
            and (not self.value or re.fullmatch(self.value, finding.value) is not None)
        )


def read_allowed(path: Path = ALLOWED) -> list[Allowed]:
    """Raises KeyError where an entry lacks something, ValueError where one has no reason, or is a whole kind in files
    that are no data."""
    entries: list[Allowed] = []
    for row in tomllib.loads(path.read_text("utf-8"))["allowed"]:
        entry = Allowed(row["path"], row["kind"], row["reason"], frozenset(row.get("digests", ())), row.get("value", ""))
        if len(entry.reason) < 20:
            raise ValueError(f"{entry.path}: {entry.kind}: why is it no secret?")
        if not entry.digests and not entry.value and not entry.path.startswith("tests/vectors/"):
            raise ValueError(f"{entry.path}: {entry.kind}: only files of vectors are allowed as a whole: name digests")
        entries.append(entry)
    return entries


def search(paths: Iterable[str], root: Path) -> list[Finding]:
    """What is found in the files, by name and by content; sorted. Paths are from `root`."""
    paths = sorted(paths)
    workers = min(2, os.cpu_count() or 1)
    found = [Finding(path, "File name", "", 0) for path in paths if any(fnmatchcase(path, name) for name in _NAMES)]
    with ProcessPoolExecutor(workers) as pool:
        for some in pool.map(_search_some, [paths[start :: 4 * workers] for start in range(4 * workers)], [root] * 4 * workers):
            found += some
    return sorted(found)


def _search_some(paths: list[str], root: Path) -> list[Finding]:
    found: set[Finding] = set()
    with transient_settings(SETTINGS), chdir(root):
        for path in paths:
            for one in scan.scan_file(path):
                value = one.secret_value or ""
                digest = sha256(value.encode("utf-8", "surrogateescape")).hexdigest()[:12]
                found.add(Finding(path, one.type, digest, one.line_number, value))
    return list(found)


def committed(root: Path) -> list[str]:
    """What is committed, or would be with `git add -A`; no links and no submodules."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split(b"\0")
    names = {os.fsdecode(name) for name in listed if name}
    return [name for name in names if (root / name).is_file() and not (root / name).is_symlink()]


def gather_history(root: Path, folder: Path) -> None:
    """Below `folder`, each path that any commit ever had, with all lines it ever had, each once."""
    lines: dict[str, dict[bytes, None]] = {}
    seen: set[str] = set()
    for row in _git(root, "rev-list", "--objects", "--all").splitlines():
        object_, _, name = os.fsdecode(row).partition(" ")
        if name and object_ not in seen:
            seen.add(object_)
            if _git(root, "cat-file", "-t", object_).strip() == b"blob":
                lines.setdefault(name, {}).update(dict.fromkeys(_git(root, "cat-file", "blob", object_).splitlines()))
    for name, content in lines.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\n".join(content) + b"\n")


def search_history(root: Path) -> list[Finding]:
    """As `search`, of all that was ever committed; lines are meaningless there."""
    with tempfile.TemporaryDirectory(prefix="openk-secrets-") as temporary:
        gather_history(root, Path(temporary))
        paths = [str(path.relative_to(temporary)) for path in Path(temporary).rglob("*") if path.is_file()]
        return search(paths, Path(temporary))


def judge(found: Iterable[Finding], allowed: Iterable[Allowed]) -> tuple[list[Finding], list[str]]:
    """What is not allowed, and what is allowed and was not found."""
    allowed = list(allowed)
    met: set[tuple[int, str]] = set()
    rest: list[Finding] = []
    for finding in found:
        covering = [number for number, entry in enumerate(allowed) if entry.covers(finding)]
        met.update((number, finding.digest if allowed[number].digests else "") for number in covering)
        if not covering:
            rest.append(finding)
    return rest, list(_unmet(allowed, met))


def _unmet(allowed: list[Allowed], met: set[tuple[int, str]]) -> Iterator[str]:
    for number, entry in enumerate(allowed):
        for digest in sorted(entry.digests) or [""]:
            if (number, digest) not in met:
                yield f"{entry.path}: {entry.kind}: {digest or 'all of them'}"


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True).stdout
