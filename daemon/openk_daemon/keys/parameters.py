"""What the configuration allows new keys to be ([crypto]); keys that are there already stay usable."""

from __future__ import annotations

from dataclasses import dataclass

from openk_daemon.keys.suites import Protection
from openk_daemon.refusal import Detail, Refusal
from openk_hsm.seam import Algorithm


@dataclass(frozen=True, slots=True)
class Parameters:
    """`rsa_bits`: of an RSA key, at least."""

    algorithms: frozenset[Algorithm] = frozenset(Algorithm)
    protections: frozenset[Protection] = frozenset(Protection)
    rsa_bits: int = 2048

    def check_algorithm(self, algorithm: Algorithm) -> None:
        """Raises Refusal key.unsupported, which names the setting and what it allows."""
        if algorithm not in self.algorithms:
            allowed = [one.value for one in Algorithm if one in self.algorithms]
            raise _refusal("algorithms", f"no new {algorithm.value} keys", allowed)
        kind, _, bits = algorithm.value.partition("-")
        if kind == "rsa" and int(bits) < self.rsa_bits:
            raise _refusal("rsa_bits", f"no new RSA keys of less than {self.rsa_bits} bits", [])

    def check_protection(self, protection: Protection) -> None:
        """Likewise."""
        if protection not in self.protections:
            allowed = [one.value for one in Protection if one in self.protections]
            raise _refusal("protections", f"no new {protection.value} keys", allowed)


def _refusal(setting: str, what: str, allowed: list[str]) -> Refusal:
    also = f"; possible are {', '.join(allowed)}" if allowed else ""
    details: dict[str, Detail] = {"setting": f"crypto.{setting}", "possible": [*allowed]}
    return Refusal("key.unsupported", f"crypto.{setting} of the configuration allows {what}{also}", details=details)
