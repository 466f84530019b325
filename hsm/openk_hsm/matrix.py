"""The matrix protection x algorithm x back end, from what tokens answered to probes."""

from __future__ import annotations

from collections.abc import Sequence
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
    missing = sorted({mechanism.name for mechanism in OPCODES} - set(info.mechanisms))
    lines.append(f"mechanisms that this token lacks: {', '.join(missing) or 'none'}")
    return "\n".join(lines)


def markdown(infos: Sequence[TokenInfo]) -> str:
    """A table with two columns for each back end; `cached` is every algorithm's third choice, in the daemon."""
    titles = [f"{info.backend} {info.model} {info.firmware}" for info in infos]
    head = "| algorithm | purpose | " + " | ".join(f"{title}: resident | wrapped" for title in titles) + " | cached |"
    rule = "|---|---|" + "---|---|" * len(infos) + "---|"
    lines = [head, rule]
    for spec in specs():
        marks = " | ".join(f"{_mark(spec in info.resident)} | {_mark(spec in info.wrapped)}" for info in infos)
        lines.append(f"| {spec.algorithm.value} | {spec.purpose.value} | {marks} | yes |")
    for title, info in zip(titles, infos, strict=True):
        missing = sorted({mechanism.name for mechanism in OPCODES} - set(info.mechanisms))
        lines.append(f"\n{title} lacks these mechanisms: {', '.join(missing) or 'none'}.")
    return "\n".join(lines) + "\n"


def _mark(able: bool) -> str:  # noqa: FBT001 - a predicate's answer
    return "yes" if able else "no"
