"""Root keys of known value, for development: the same on every token, so that a group of HSMs can be tried.

A real token's root keys never leave it, so openk cannot copy them: hardware that is to be a group is cloned as its
vendor says (docs/hsm.md).  These here are made from a file, HMAC-SHA-256(file, label): whoever has the file has
everything, which is why nothing is done to keep it out of this process's heap.
"""

from __future__ import annotations

import ctypes
import hmac
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11 import templates
from openk_hsm.pkcs11.codes import check
from openk_hsm.pkcs11.module import Module, Template, Ulong
from openk_hsm.pkcs11.public import EC_PARAMS
from openk_hsm.roots import name_of
from openk_hsm.seam import Algorithm, KeyHandle

SEED_LEAST: Final = 16  # bytes


def value_of(root: KeyHandle, seed: bytes) -> bytes:
    """The 32 bytes of that root key."""
    return hmac.digest(seed, name_of(root)[0].encode(), "sha256")


def create(module: Module, session: int, root: KeyHandle, value: bytes) -> None:
    """Raises HsmError."""
    label, id_ = name_of(root)
    kind = templates.kind_of(root.spec.algorithm)
    rows: templates.Rows = [(ck.CKA_CLASS, kind.object_class), (ck.CKA_KEY_TYPE, kind.key_type), (ck.CKA_TOKEN, True)]
    rows += templates.named(label, id_)
    if root.spec.algorithm is Algorithm.ED25519:
        point = Ed25519PrivateKey.from_private_bytes(value).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        public: templates.Rows = [
            (ck.CKA_CLASS, ck.CKO_PUBLIC_KEY),
            (ck.CKA_KEY_TYPE, kind.key_type),
            (ck.CKA_TOKEN, True),
            (ck.CKA_PRIVATE, False),
            (ck.CKA_VERIFY, True),
            *templates.named(label, id_),
            (ck.CKA_EC_PARAMS, EC_PARAMS[root.spec.algorithm]),
            (ck.CKA_EC_POINT, bytes((0x04, len(point))) + point),
        ]
        _create(module, session, public)
        rows.append((ck.CKA_EC_PARAMS, EC_PARAMS[root.spec.algorithm]))
    _create(module, session, [*rows, (ck.CKA_VALUE, value), *templates.protective(root.spec)])


def _create(module: Module, session: int, rows: templates.Rows) -> None:
    template = Template(rows)
    handle = Ulong()
    check(module.create_object(session, template.array, template.count, ctypes.byref(handle)), "C_CreateObject")
