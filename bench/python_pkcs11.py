"""The same loops through python-pkcs11, one thread; used as raw_pkcs11:

`python -m bench.python_pkcs11 MODULE LABEL < commands`
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol, cast

import pkcs11
from pkcs11.util.ec import encode_named_curve_parameters


class Signs(Protocol):
    """What python-pkcs11's stubs leave out: keys get `sign` from mix-ins when they are loaded."""

    def sign(self, data: bytes, *, mechanism: pkcs11.Mechanism) -> bytes: ...


def main() -> None:
    module, label = sys.argv[1:]
    pin = sys.stdin.readline().rstrip("\n")
    token = pkcs11.lib(module).get_token(token_label=label)
    with token.open(rw=True, user_pin=pin) as session:
        curve = encode_named_curve_parameters("secp256r1")
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: curve}, local=True
        )
        p256 = cast(Signs, parameters.generate_keypair(store=False)[1])
        mac = cast(
            Signs,
            session.generate_key(
                pkcs11.KeyType.GENERIC_SECRET, 256, store=False, capabilities=pkcs11.MechanismFlag.SIGN
            ),
        )
        digest, text = b"\x5a" * 32, b"\x5a" * 64
        loops: dict[str, Callable[[], object]] = {
            "p256": lambda: p256.sign(digest, mechanism=pkcs11.Mechanism.ECDSA),
            "hmac": lambda: mac.sign(text, mechanism=pkcs11.Mechanism.SHA256_HMAC),
        }
        say("ready")
        for line in sys.stdin:
            operation, seconds = line.split()
            work = loops[operation]
            done, begin = 0, time.perf_counter()
            while (took := time.perf_counter() - begin) < float(seconds):
                work()
                done += 1
            say(f"{done} {took:.6f}")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
