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

from openk import errors, results
from openk.client import Client
from openk.errors import Error
from openk.future import Future
from openk.pipeline import Pipeline
from openk.secret import Buffer, Secret

__all__ = ["Buffer", "Client", "Error", "Future", "Pipeline", "Secret", "errors", "results"]
