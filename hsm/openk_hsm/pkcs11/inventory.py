"""openk's keys on the token: found by label and id (labels are not unique), asserted, missed in the right words."""

from __future__ import annotations

import sys
from typing import Final

from openk_hsm.errors import HsmError, TokenUninitialised, Unsupported, Untrusted
from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11 import templates
from openk_hsm.pkcs11.composite import MAC_ID_SUFFIX, PAIR
from openk_hsm.pkcs11.objects import Objects
from openk_hsm.pkcs11.probe import DataWay
from openk_hsm.roots import AUDIT_KEY, AUDIT_KEYS, name_of, root_data, roots
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec

OURS: Final = "openk-"
"""What the labels of openk's keys begin with."""


class Inventory:
    """`token`: its label, for messages. `data`: how data keys made today would seal."""

    def __init__(self, objects: Objects, token: str, data: DataWay) -> None:
        self._objects = objects
        self._token = token
        self._data = data

    def assert_all(self) -> None:
        """Every key of openk on the token, whoever asks for it later or never, is as openk made it, or Untrusted."""
        for kind in (ck.CKO_SECRET_KEY, ck.CKO_PRIVATE_KEY):
            for handle in self._objects.find([(ck.CKA_TOKEN, True), (ck.CKA_CLASS, kind)]):
                self._objects.assert_protected(handle, OURS)

    def only_key(self, spec: KeySpec, label: str, id_: bytes) -> int:
        """The handle of the key with that name. Raises Untrusted when it is there twice or not as openk makes it."""
        found = self._objects.keys_named(label, id_)
        if len(found) > 1:
            raise Untrusted(
                f"the token has {len(found)} keys named {label!r} where openk made one: it uses none of them. Look "
                "with the vendor's tool, and destroy what does not belong there"
            )
        if not found:
            raise HsmError(
                f"the token has no key named {label!r}: it was destroyed, not by openk, or this is another token",
                device="CKR_OBJECT_HANDLE_INVALID",
            )
        self._objects.assert_ours(found[0], spec, token=True, name=label)
        return found[0]

    def data_algorithm(self) -> Algorithm:
        """What the root's data key is, or would be. It stays a pair when the token learns GCM: what it sealed must
        open."""
        label, id_ = name_of(root_data(PAIR.algorithm))
        return PAIR.algorithm if self._objects.keys_named(label, id_ + MAC_ID_SUFFIX) else self._data.algorithm

    def audit_algorithm(self, resident: frozenset[KeySpec]) -> Algorithm | None:
        """What the audit key is, or would be where the token makes keys of `resident`. It stays what it is when the
        token learns a better one: whoever verifies the log has its public key. Raises Unsupported, Untrusted."""
        able = [algorithm for algorithm, key in AUDIT_KEYS.items() if key.spec in resident]
        found = self._objects.keys_named(*name_of(AUDIT_KEY))
        if not found:
            return able[0] if able else None
        kind = self._objects.read(found[0], ck.CKA_KEY_TYPE) or b""
        key_type = int.from_bytes(kind, sys.byteorder)
        made = next((each for each in AUDIT_KEYS if templates.kind_of(each).key_type == key_type), None)
        if made is None:
            raise Untrusted(f"the token's openk-audit is of the key type {key_type:#x}, which openk makes none of")
        if made not in able:
            raise Unsupported(
                f"the token's openk-audit is an {made} key, and the token signs with none now. Was its firmware, its "
                "library or its FIPS mode changed?"
            )
        return made

    def check_root(self, root: KeyHandle) -> None:
        """Raises TokenUninitialised when it is not there, Unsupported when it seals as this token cannot any more."""
        label, id_ = name_of(root)
        if not self._objects.keys_named(label, id_):
            raise TokenUninitialised(self._missing(label))
        if root.spec == PAIR and not self._objects.keys_named(label, id_ + MAC_ID_SUFFIX):
            raise Unsupported(
                f"the token's {label} seals with AES-GCM, and that does not work now: {self._data.why}. Was the "
                "token's firmware, its library or its FIPS mode changed?"
            )

    def _missing(self, label: str) -> str:
        names = map(name_of, roots(self._data.algorithm, AUDIT_KEY.spec.algorithm))
        others = [name for name, id_ in names if self._objects.keys_named(name, id_)]
        if not others:
            return f"the token {self._token!r} has no {label}: run `openk-hsm init`"
        if label == name_of(AUDIT_KEY)[0]:
            return (
                f"the token {self._token!r} has no {label}: `openk-hsm init --complete` makes one. If it had one and "
                "somebody destroyed it, restore the token from its backup: a log goes on under no other key"
            )
        return (
            f"the token {self._token!r} has no {label}, but it has {', '.join(others)}: either `openk-hsm init` "
            "was interrupted (then `openk-hsm init --complete`), or somebody destroyed it: then restore the token from "
            "its backup, for a new key opens nothing that the old one sealed"
        )

    def audit_public(self, audit: Algorithm) -> bytes:
        """SubjectPublicKeyInfo DER of the audit key, which is that."""
        label, id_ = name_of(AUDIT_KEY)
        found = self._objects.find([*templates.named(label, id_), (ck.CKA_CLASS, ck.CKO_PUBLIC_KEY)])
        if len(found) != 1:
            raise Untrusted(f"the token has {len(found)} public keys named {label}: openk makes one")
        return self._objects.public_key(found[0], AUDIT_KEYS[audit].spec)
