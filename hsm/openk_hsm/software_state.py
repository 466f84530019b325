"""The software HSM's file of token objects, for tests that restart its process. JSON, in clear, 0600."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from openk_hsm import software_keys
from openk_hsm.seam import Algorithm, KeySpec, Purpose
from openk_hsm.software_keys import Material

Objects = dict[tuple[str, bytes], tuple[KeySpec, Material]]


def load_state(path: Path) -> Objects:
    """The objects in `path`; none when there is no such file."""
    try:
        rows = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    objects: Objects = {}
    for row in rows:
        spec = KeySpec(Algorithm(row["algorithm"]), Purpose(row["purpose"]))
        material = software_keys.parse(spec, base64.b64decode(row["value"]))
        objects[row["label"], bytes.fromhex(row["id"])] = (spec, material)
    return objects


def save_state(path: Path, objects: Objects) -> None:
    """Replace `path` in one step."""
    rows = [
        {
            "label": label,
            "id": id_.hex(),
            "algorithm": spec.algorithm.value,
            "purpose": spec.purpose.value,
            "value": base64.b64encode(software_keys.encode(material)).decode(),
        }
        for (label, id_), (spec, material) in objects.items()
    ]
    fresh = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(rows, file)
    fresh.replace(path)
