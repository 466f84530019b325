"""The client of openk, a key management daemon.

    import openk

    with openk.Client() as client:
        client.vault.create("payments")
        client.key.create("payments/card", "aes-256-gcm")
        sealed = client.key.encrypt("payments/card", b"4111 1111 1111 1111", aad=b"customer 17")
        with client.key.decrypt("payments/card", sealed.ciphertext, aad=b"customer 17").plaintext as number:
            ...  # number is a Secret: a bytearray, wiped at the end of the block

Methods are named as on the wire, noun and verb; docs/reference.md describes each. Errors are in `openk.errors`.
`openk.trio.Client` has the same methods, awaited.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from openk import errors, results
    from openk.client import Client
    from openk.errors import Error
    from openk.future import Future
    from openk.pipeline import Pipeline
    from openk.secret import Buffer, Secret

__all__ = ["Buffer", "Client", "Error", "Future", "Pipeline", "Secret", "errors", "results"]

_HOMES: Final = {
    "Buffer": "openk.secret",
    "Client": "openk.client",
    "Error": "openk.errors",
    "Future": "openk.future",
    "Pipeline": "openk.pipeline",
    "Secret": "openk.secret",
    "errors": "",
    "results": "",
}
"""Where each name is defined; "" for a module. Imported when first asked for (PEP 562): the daemon needs `openk.wire`
alone, and the client around it would cost it 7 MB and 60 ms."""


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(home), name) if home else import_module(f"{__name__}.{name}")
    globals()[name] = found
    return found
