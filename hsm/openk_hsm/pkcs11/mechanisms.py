"""CK_MECHANISM values made once: a hot call only points at them."""

from __future__ import annotations

import ctypes
from typing import Final

from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.module import Mech, Pointer, Ulong
from openk_hsm.seam import Mechanism


class GcmParams(ctypes.Structure):
    """CK_GCM_PARAMS (PKCS#11 v3.1, section 6.13.3)."""

    _fields_ = (
        ("iv", Pointer),
        ("iv_length", Ulong),
        ("iv_bits", Ulong),
        ("aad", Pointer),
        ("aad_length", Ulong),
        ("tag_bits", Ulong),
    )


class PssParams(ctypes.Structure):
    """CK_RSA_PKCS_PSS_PARAMS."""

    _fields_ = (("hash", Ulong), ("mgf", Ulong), ("salt_length", Ulong))


class OaepParams(ctypes.Structure):
    """CK_RSA_PKCS_OAEP_PARAMS."""

    _fields_ = (("hash", Ulong), ("mgf", Ulong), ("source", Ulong), ("data", Pointer), ("data_length", Ulong))


class EcdhParams(ctypes.Structure):
    """CK_ECDH1_DERIVE_PARAMS."""

    _fields_ = (
        ("kdf", Ulong),
        ("shared_length", Ulong),
        ("shared", Pointer),
        ("public_length", Ulong),
        ("public", Pointer),
    )


DIGEST_INFO: Final[dict[Mechanism, bytes]] = {
    Mechanism.RSA_PKCS1_SHA_256: bytes.fromhex("3031300d060960864801650304020105000420"),
    Mechanism.RSA_PKCS1_SHA_384: bytes.fromhex("3041300d060960864801650304020205000430"),
    Mechanism.RSA_PKCS1_SHA_512: bytes.fromhex("3051300d060960864801650304020305000440"),
}
"""What EMSA-PKCS1-v1_5 puts before a digest (RFC 8017, section 9.2, note 1)."""

CKM: Final[dict[Mechanism, int]] = {
    Mechanism.AES_GCM: ck.CKM_AES_GCM,
    Mechanism.HMAC_SHA_256: ck.CKM_SHA256_HMAC,
    Mechanism.HMAC_SHA_384: ck.CKM_SHA384_HMAC,
    Mechanism.HMAC_SHA_512: ck.CKM_SHA512_HMAC,
    Mechanism.EDDSA: ck.CKM_EDDSA,
    Mechanism.ECDSA: ck.CKM_ECDSA,
    Mechanism.RSA_PKCS1_SHA_256: ck.CKM_RSA_PKCS,
    Mechanism.RSA_PKCS1_SHA_384: ck.CKM_RSA_PKCS,
    Mechanism.RSA_PKCS1_SHA_512: ck.CKM_RSA_PKCS,
    Mechanism.RSA_PSS_SHA_256: ck.CKM_RSA_PKCS_PSS,
    Mechanism.RSA_PSS_SHA_384: ck.CKM_RSA_PKCS_PSS,
    Mechanism.RSA_PSS_SHA_512: ck.CKM_RSA_PKCS_PSS,
    Mechanism.RSA_OAEP_SHA_1: ck.CKM_RSA_PKCS_OAEP,
    Mechanism.RSA_OAEP_SHA_256: ck.CKM_RSA_PKCS_OAEP,
    Mechanism.RSA_OAEP_SHA_384: ck.CKM_RSA_PKCS_OAEP,
    Mechanism.RSA_OAEP_SHA_512: ck.CKM_RSA_PKCS_OAEP,
    Mechanism.ECDH: ck.CKM_ECDH1_DERIVE,
}
_HASHES: Final = (
    (ck.CKM_SHA_1, ck.CKG_MGF1_SHA1, 20),
    (ck.CKM_SHA256, ck.CKG_MGF1_SHA256, 32),
    (ck.CKM_SHA384, ck.CKG_MGF1_SHA384, 48),
    (ck.CKM_SHA512, ck.CKG_MGF1_SHA512, 64),
)


class Mechanisms:
    """One CK_MECHANISM each, by number, with the two whose parameters change per call. They live as long as this."""

    def __init__(self) -> None:
        self.gcm = GcmParams(None, 12, 96, None, 0, 128)
        self.ecdh = EcdhParams(ck.CKD_NULL, 0, None, 0, None)
        self._parameters: list[ctypes.Structure] = [self.gcm, self.ecdh]
        self.address: list[int] = [0] * (max(Mechanism) + 1)
        self._values: list[Mech] = []
        for mechanism, number in CKM.items():
            value = Mech(number, None, 0)
            parameter = self._parameter(mechanism)
            if parameter is not None:
                value.parameter = ctypes.addressof(parameter)
                value.length = ctypes.sizeof(parameter)
            self._values.append(value)
            self.address[mechanism] = ctypes.addressof(value)

    def _parameter(self, mechanism: Mechanism) -> ctypes.Structure | None:
        made: ctypes.Structure
        if mechanism is Mechanism.AES_GCM:
            return self.gcm
        if mechanism is Mechanism.ECDH:
            return self.ecdh
        if Mechanism.RSA_PSS_SHA_256 <= mechanism <= Mechanism.RSA_PSS_SHA_512:
            made = PssParams(*_HASHES[mechanism - Mechanism.RSA_PSS_SHA_256 + 1])
        elif Mechanism.RSA_OAEP_SHA_1 <= mechanism <= Mechanism.RSA_OAEP_SHA_512:
            number, mgf, _ = _HASHES[mechanism - Mechanism.RSA_OAEP_SHA_1]
            made = OaepParams(number, mgf, ck.CKZ_DATA_SPECIFIED, None, 0)
        else:
            return None
        self._parameters.append(made)
        return made
