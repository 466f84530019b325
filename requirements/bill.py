"""The software bill of materials, CycloneDX 1.6: `requirements/sbom` prints it. The same lock gives the same bytes.

What openkd, openk-hsm and openk are made of: our packages, the locked ones with the SHA-256 of each file that may be
installed, what is compiled into those (their wheels say so in *.dist-info/sboms, PEP 770), and what is loaded from the
operating system, which has no version here, for it is the host's."""

from __future__ import annotations

import hashlib
import json
import sys
import tomllib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path
from typing import Final, cast

import apsw
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.bom_ref import BomRef
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.spdx import is_expression, is_supported_id
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from requirements.locks import HERE, Locked, installed, license_of, read_lock

_SYSTEM: Final = (
    ("python3", "CPython 3.11 or later, the interpreter", ComponentScope.REQUIRED),
    ("libc6", "the C library, called directly for what Python does not offer", ComponentScope.REQUIRED),
    ("libgcc-s1", "loaded before confinement: the C library wants it when a thread ends", ComponentScope.REQUIRED),
    ("libseccomp2", "builds the filter of system calls", ComponentScope.REQUIRED),
    ("softhsm2", "a PKCS#11 module for development; in production the module of your device", ComponentScope.OPTIONAL),
    ("libusb-1.0-0", "reaches a YubiHSM that has no connector (extra: usb)", ComponentScope.OPTIONAL),
)
"""What is loaded from the host, by the name of Debian's package."""
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/openk")


def make_bom() -> str:
    """The document, as JSON text that ends in a newline. Raises LockError, and LookupError for a package that is not
    installed as locked (what is inside it can only be told then)."""
    bom = Bom(version=1)
    root, client = _ours(HERE.parent / "pyproject.toml"), _ours(HERE.parent / "client" / "pyproject.toml")
    bom.metadata.component = root[0]
    locked = [one for one in read_lock(HERE / "runtime.txt") if one.here]
    asked = {one.name: _dependencies(_found(one)) for one in locked}
    asked |= {client[0].name: client[1], root[0].name: root[1]}
    needed = _reachable(root[0].name, asked)
    components = {one.name: _component(one, used=one.name in needed) for one in locked}
    components[client[0].name] = client[0]
    system = [_system(*row) for row in _SYSTEM]
    bom.components.update([*components.values(), *system])
    everything = {**components, root[0].name: root[0]}
    for name, component in everything.items():
        below = [Dependency(everything[one].bom_ref) for one in asked[name] if one in everything]
        if name == root[0].name:
            below += [Dependency(one.bom_ref) for one in system]
        bom.dependencies.add(Dependency(component.bom_ref, below))
    return _settled(JsonV1Dot6(bom).output_as_string())


def _settled(text: str) -> str:
    """Without the moment it was made, and with a serial number that is its content's: the same again for the same."""
    document = json.loads(text)
    document["metadata"].pop("timestamp", None)
    document.pop("serialNumber", None)
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest)}"
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _ours(project: Path) -> tuple[Component, list[str]]:
    """One of our own packages, and what it asks for."""
    table = tomllib.loads(project.read_text("utf-8"))["project"]
    name, version = table["name"], table["version"]
    purl = PackageURL("pypi", name=name, version=version)
    component = Component(
        type=ComponentType.APPLICATION if name == "openkd" else ComponentType.LIBRARY,
        name=name,
        version=version,
        description=table["description"],
        licenses=[LicenseExpression(table["license"])],
        purl=purl,
        bom_ref=BomRef(str(purl)),
    )
    return component, [canonicalize_name(Requirement(one).name) for one in table["dependencies"]]


def _found(one: Locked) -> Distribution:
    found = installed(one.name)
    if found is None or found.version != one.version:
        raise LookupError(f"{one.name} {one.version} is not what is installed: run requirements/install dev")
    return found


def _dependencies(found: Distribution) -> list[str]:
    """Without extras, on this platform."""
    asked = map(Requirement, found.requires or ())
    return sorted(
        {canonicalize_name(one.name) for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})}
    )


def _reachable(begin: str, asked: Mapping[str, Iterable[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = [begin]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += asked.get(name, ())
    return reached


def _component(one: Locked, *, used: bool) -> Component:
    found = _found(one)
    purl = PackageURL("pypi", name=one.name, version=one.version)
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(f"https://pypi.org/project/{one.name}/{one.version}/#files"),
        comment="the files of this version that openk may be installed with, by their SHA-256",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=content) for content in one.hashes],
    )
    return Component(
        type=ComponentType.LIBRARY,
        name=one.name,
        version=one.version,
        description="".join(found.metadata.get_all("Summary", ())).strip() or None,
        licenses=[LicenseExpression(license_of(one.name, found))],
        purl=purl,
        bom_ref=BomRef(str(purl)),
        scope=ComponentScope.REQUIRED if used else ComponentScope.EXCLUDED,  # excluded: builds our packages
        external_references=[files],
        components=list(_inside(one, found)),
    )


def _inside(one: Locked, found: Distribution) -> Iterator[Component]:
    """What is compiled into a package, by its own bills."""
    if one.name == "apsw":  # it has none, and what is in it matters
        yield _part(one, "sqlite", apsw.sqlite_lib_version(), "generic", None, ())
    seen: set[tuple[str, str]] = set()
    for path in sorted(map(str, found.files or ())):
        if "/sboms/" not in path or not path.endswith(".json"):
            continue
        document = json.loads(Path(str(found.locate_file(path))).read_text("utf-8"))
        for row in document.get("components", ()):
            name, version = row["name"], row.get("version", "")
            kind = PackageURL.from_string(row["purl"]).type if "purl" in row else "generic"
            if name != one.name and (name, version) not in seen:
                seen.add((name, version))
                yield _part(one, name, version, kind, _license(row), row.get("hashes", ()))


def _license(row: Mapping[str, object]) -> str | None:
    """The SPDX expression in another bill's component."""
    for entry in cast("Sequence[Mapping[str, object]]", row.get("licenses", ())):
        told = entry.get("expression") or cast("Mapping[str, str]", entry.get("license", {})).get("id")
        if isinstance(told, str) and (is_supported_id(told) or is_expression(told)):
            return told
    return None


def _part(
    whole: Locked, name: str, version: str, kind: str, told: str | None, hashes: Sequence[Mapping[str, str]]
) -> Component:
    purl = PackageURL(kind, name=name, version=version)
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        purl=purl,
        bom_ref=BomRef(f"{whole.name}/{purl}"),
        licenses=[LicenseExpression(told)] if told else [],
        hashes=[HashType(alg=HashAlgorithm(row["alg"]), content=row["content"]) for row in hashes],
    )


def _system(name: str, description: str, scope: ComponentScope) -> Component:
    purl = PackageURL("deb", "debian", name)
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        description=description,
        purl=purl,
        bom_ref=BomRef(str(purl)),
        scope=scope,
        properties=[Property(name="openk:origin", value="the operating system: its version is the host's")],
    )


if __name__ == "__main__":
    sys.stdout.write(make_bom())
