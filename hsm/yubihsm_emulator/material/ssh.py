"""SSH certificates: what a request says, what a template allows, and the signature's form.

template: fields of tag u8 | length u16 | value, in any order
tag 1   algorithm of the timestamp key, u8 (RSA)       tag 4   may begin so long before now, u32 seconds
tag 2   modulus of the timestamp key                   tag 5   may end so long after now, u32 seconds
tag 3   ids of keys that may sign, u16 each            tag 6   names that may not be principals, each ended by 00

request: an OpenSSH certificate (PROTOCOL.certkeys, ssh-rsa-cert-v01) without the signature at its end;
string = length u32 | bytes
type | nonce | e | n | serial u64 | kind u32 | key id | principals | valid after u64 | valid before u64
| critical options | extensions | reserved | signature key          (all but the numbers are strings)
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import digests, rsa
from yubihsm_emulator.reader import Reader

_TYPE: Final = b"ssh-rsa-cert-v01@openssh.com"
_ANY_BEGIN: Final = 0
_ANY_END: Final = 0xFFFF_FFFF
"""In a template: no bound. (Yubico's example has both, and a certificate that is valid for ever.)"""


@dataclass(frozen=True, slots=True)
class Template:
    """What a certificate may say. `modulus` is that of the key that vouches for the time."""

    modulus: bytes
    signers: frozenset[int]
    earlier: int
    later: int
    blocked: frozenset[bytes]

    @classmethod
    def parse(cls, data: bytes) -> "Template":
        """INVALID DATA unless the timestamp key is there and every field has its size; unknown tags are too much."""
        fields = _fields(data)
        modulus = rsa.from_modulus(int.from_bytes(fields.get(1, b""), "big"), fields.get(2, b""))
        signers = fields.get(3, b"")
        if len(signers) % 2:
            raise DeviceError(ErrorCode.INVALID_DATA)
        return cls(
            modulus,
            frozenset(int.from_bytes(signers[at : at + 2], "big") for at in range(0, len(signers), 2)),
            _offset(fields.get(4, bytes(4))),
            _offset(fields.get(5, b"\xff" * 4)),
            frozenset(name for name in fields.get(6, b"").split(b"\x00") if name),
        )

    def vouched(self, request: bytes, now: int, signature: bytes) -> bool:
        """Whether the timestamp key signed SHA-256(request) and the time (u32)."""
        said = hashlib.sha256(request).digest() + now.to_bytes(4, "big")
        try:
            rsa.public_key(self.modulus).verify(signature, said, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True

    def allows(self, request: "Request", signer: int, now: int) -> bool:
        """Whether this key may sign this request at this time (u32, seconds since 1970)."""
        # A certificate without principals is good for every name, so also for the blocked ones.
        named = not (self.blocked and (not request.principals or self.blocked & request.principals))
        begins = self.earlier == _ANY_BEGIN or request.valid_after >= now - self.earlier
        ends = self.later == _ANY_END or request.valid_before <= now + self.later
        return signer in self.signers and begins and ends and named


@dataclass(frozen=True, slots=True)
class Request:
    principals: frozenset[bytes]
    valid_after: int
    valid_before: int

    @classmethod
    def parse(cls, data: bytes) -> "Request":
        """INVALID DATA for bytes that are no certificate without signature."""
        reader = Reader(data)
        try:
            if _string(reader) != _TYPE:
                raise DeviceError(ErrorCode.INVALID_DATA)
            for _ in ("nonce", "e", "n"):
                _string(reader)
            reader.take(8 + 4)
            _string(reader)
            principals = _strings(_string(reader))
            valid_after, valid_before = reader.u64(), reader.u64()
            for _ in ("critical options", "extensions", "reserved", "signature key"):
                _string(reader)
            reader.end()
        except DeviceError:
            raise DeviceError(ErrorCode.INVALID_DATA) from None
        return cls(principals, valid_after, valid_before)


def sign(material: bytes, algorithm: int, request: bytes) -> bytes:
    """The signature as it stands at the end of a certificate: string(string "ssh-rsa" | string PKCS#1 signature).

    `algorithm` is one of rsa-pkcs1-sha1 ... rsa-pkcs1-sha512, else INVALID DATA.
    """
    made = rsa.private_key(material).sign(request, padding.PKCS1v15(), digests.pkcs1_hash(algorithm))
    return _packed(_packed(b"ssh-rsa") + _packed(made))


def _packed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _string(reader: Reader) -> bytes:
    return reader.take(reader.u32())


def _strings(data: bytes) -> frozenset[bytes]:
    reader = Reader(data)
    found: set[bytes] = set()
    while reader.remaining:
        found.add(_string(reader))
    return frozenset(found)


def _fields(data: bytes) -> dict[int, bytes]:
    reader = Reader(data)
    fields: dict[int, bytes] = {}
    try:
        while reader.remaining:
            tag = reader.u8()
            fields[tag] = reader.take(reader.u16())
    except DeviceError:
        raise DeviceError(ErrorCode.INVALID_DATA) from None
    if not fields.keys() <= set(range(1, 7)):
        raise DeviceError(ErrorCode.INVALID_DATA)
    return fields


def _offset(value: bytes) -> int:
    if len(value) != 4:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return int.from_bytes(value, "big")
