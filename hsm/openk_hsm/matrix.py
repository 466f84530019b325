"""The matrix protection x algorithm x back end, from what tokens answered to probes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openk_hsm.seam import Algorithm, KeySpec, Purpose, TokenInfo
from openk_hsm.specs import MECHANISMS, OPCODES

_INTERNAL: Final = frozenset({Purpose.KEY_WRAP})
_DAEMON_ONLY: Final = (
    *(
        KeySpec(algorithm, Purpose.SIGN)
        for algorithm in (Algorithm.ML_DSA_44, Algorithm.ML_DSA_65, Algorithm.ML_DSA_87)
    ),
    *(
        KeySpec(algorithm, Purpose.ENCAPSULATE)
        for algorithm in (Algorithm.ML_KEM_512, Algorithm.ML_KEM_768, Algorithm.ML_KEM_1024)
    ),
)


def specs() -> list[KeySpec]:
    """What clients can ask for, in the order of the documentation."""
    return [*(spec for spec in MECHANISMS if spec.purpose not in _INTERNAL), *_DAEMON_ONLY]


def as_json(info: TokenInfo) -> dict[str, object]:
    return {
        "backend": info.backend,
        "model": info.model,
        "firmware": info.firmware,
        "serial": info.serial,
        "chosen": dict(info.chosen),
        "mechanisms": list(info.mechanisms),
        "missing": sorted({mechanism.name for mechanism in OPCODES} - set(info.mechanisms)),
        "keys": [
            {
                "algorithm": spec.algorithm.value,
                "purpose": spec.purpose.value,
                "resident": spec in info.resident,
                "wrapped": spec in info.wrapped,
            }
            for spec in specs()
        ],
    }


def table(info: TokenInfo) -> str:
    lines = [f"{'algorithm':14} {'purpose':12} resident  wrapped"]
    for spec in specs():
        resident, wrapped = _mark(spec in info.resident), _mark(spec in info.wrapped)
        lines.append(f"{spec.algorithm.value:14} {spec.purpose.value:12} {resident:9} {wrapped}")
    lines += [f"{job}: {how}" for job, how in info.chosen.items()]
    lines.append(f"mechanisms that this token lacks: {_missing(info)}")
    return "\n".join(lines)


def markdown(columns: Mapping[str, TokenInfo | str]) -> str:
    """Two tables with a column for each token: what it makes and keeps, and what was negotiated with it. A text in
    place of a description: why the token cannot serve."""
    lines = [_row("algorithm", "purpose", *columns), _rule(2 + len(columns))]
    for spec in specs():
        cells = (_protections(info, spec) for info in columns.values())
        lines.append(_row(spec.algorithm.value, spec.purpose.value, *cells))
    jobs = {job: None for info in columns.values() if isinstance(info, TokenInfo) for job in info.chosen}
    lines += ["", _row("negotiated", *columns), _rule(1 + len(columns))]
    for job in jobs:
        lines.append(
            _row(job, *("" if isinstance(info, str) else info.chosen.get(job, "") for info in columns.values()))
        )
    lines.append(_row("mechanisms that it lacks", *map(_missing, columns.values())))
    if any(isinstance(info, str) for info in columns.values()):
        lines.append(_row("cannot serve", *(info if isinstance(info, str) else "" for info in columns.values())))
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


def _rule(columns: int) -> str:
    return "|" + "---|" * columns


def _protections(info: TokenInfo | str, spec: KeySpec) -> str:
    if isinstance(info, str):
        return "-"
    return ", ".join(
        name for name, able in (("resident", spec in info.resident), ("wrapped", spec in info.wrapped)) if able
    )


def _missing(info: TokenInfo | str) -> str:
    if isinstance(info, str):
        return ""
    return ", ".join(sorted({mechanism.name for mechanism in OPCODES} - set(info.mechanisms))) or "none"


def _mark(able: bool) -> str:  # noqa: FBT001 - a predicate's answer
    return "yes" if able else "no"
