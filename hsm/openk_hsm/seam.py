"""The seam between openk and any HSM: what a lane offers the daemon, what a back end offers a worker.

Two Protocols.  `Lane` lives in the daemon: it never blocks, it queues operations for a worker process
and settles `Pending` values.  `Backend` lives in the worker: synchronous, one thread, vendor code below it.
Between them runs a seqpacket socket (descriptors) and the hand-off region (all bytes that may be secret).

Names follow PKCS#11 v3.1; purposes follow NIST SP 800-57 part 1, section 5.2 (one key, one job).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, Protocol, runtime_checkable

from openk_hsm.errors import HsmError
from openk_hsm.lane_health import LaneHealth
from openk_hsm.pending import Pending


class Algorithm(StrEnum):
    """What a key is."""

    AES_256_GCM = "aes-256-gcm"
    HMAC_SHA_256 = "hmac-sha-256"
    HMAC_SHA_384 = "hmac-sha-384"
    HMAC_SHA_512 = "hmac-sha-512"
    ED25519 = "ed25519"
    P256 = "p-256"
    P384 = "p-384"
    P521 = "p-521"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    X25519 = "x25519"
    ML_DSA_44 = "ml-dsa-44"
    ML_DSA_65 = "ml-dsa-65"
    ML_DSA_87 = "ml-dsa-87"
    ML_KEM_512 = "ml-kem-512"
    ML_KEM_768 = "ml-kem-768"
    ML_KEM_1024 = "ml-kem-1024"
    AES_256_KWP = "aes-256-kwp"
    """Internal: the `kw` keys of root and vaults. Clients cannot create one."""
    AES_256_CCM = "aes-256-ccm"
    """Internal: the `data` keys of root and vaults where the device has its own authenticated wrap (YubiHSM 2)."""
    AES_256_CBC_HMAC = "aes-256-cbc-hmac-sha-256"
    """Internal: the same where a PKCS#11 token has no AES-GCM. Two keys on the token, one to encrypt, one to MAC."""


class Purpose(StrEnum):
    """The one job of a key; sets the CKA usage attributes exactly."""

    ENCRYPT = "encrypt"  # AES-GCM: client data
    WRAP = "wrap"  # AES-GCM: clients' data keys and key bytes
    MAC = "mac"
    DERIVE = "derive"
    SIGN = "sign"
    DECRYPT = "decrypt"  # RSA-OAEP
    AGREE = "agree"
    ENCAPSULATE = "encapsulate"  # ML-KEM
    KEY_WRAP = "key-wrap"  # internal: CKA_WRAP + CKA_UNWRAP only


class Mechanism(IntEnum):
    """How a hot operation uses a key. Numbers travel between daemon and worker only."""

    NONE = 0
    AES_GCM = 1  # param = 12-byte nonce
    WRAP_DATA = 2  # no param; the device's nonce; `aad` bound by its digest inside: the answer is 62 bytes longer
    AES_CBC_HMAC = 3  # param = 12-byte nonce; encrypt, then MAC over `aad`, nonce and ciphertext: 48 bytes longer
    HMAC_SHA_256 = 10
    HMAC_SHA_384 = 11
    HMAC_SHA_512 = 12
    EDDSA = 20  # data = message (RFC 8032 pure)
    ECDSA = 21  # data = digest, answer = r || s (PKCS#11 section 6.3.12)
    RSA_PKCS1_SHA_256 = 30  # data = digest
    RSA_PKCS1_SHA_384 = 31
    RSA_PKCS1_SHA_512 = 32
    RSA_PSS_SHA_256 = 33  # data = digest, salt as long as the digest, MGF1 with the same hash
    RSA_PSS_SHA_384 = 34
    RSA_PSS_SHA_512 = 35
    RSA_OAEP_SHA_1 = 40  # data = ciphertext; MGF1 with the same hash, empty label
    RSA_OAEP_SHA_256 = 41
    RSA_OAEP_SHA_384 = 42
    RSA_OAEP_SHA_512 = 43
    ECDH = 50  # data = peer's point, uncompressed X9.62 or 32 bytes; answer = shared x


class OpCode(IntEnum):
    """Hot operations: they go in batches, with fixed descriptors, and are all `pure`."""

    RANDOM = 1
    MAC = 2
    SIGN = 3
    ENCRYPT = 4
    DECRYPT = 5
    AGREE = 6


class Replay(StrEnum):
    """What happens to an operation whose worker died before it answered."""

    PURE = "pure"  # leaves nothing behind: done again
    JOURNALED = "journaled"  # fails with hsm.interrupted; the caller's journal undoes it, and begins anew where another id will do
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class KeySpec:
    algorithm: Algorithm
    purpose: Purpose


@dataclass(frozen=True, slots=True, eq=False)
class KeyHandle:
    """A key as a lane knows it. `slot` is unique in the daemon's life, so workers can be told of it
    before they have it; a lane loads `source` into a worker on first use, and again after a crash. `hsm`: the name of
    the HSM that has it, empty for the daemon's first."""

    slot: int
    spec: KeySpec
    source: Resident | Wrapped
    hsm: str = ""


@dataclass(frozen=True, slots=True)
class Resident:
    """A token object, found by label and id; two matches are refused (labels are not unique)."""

    label: str
    id: bytes


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A key object wrapped in the HSM; `context` is bound to it (for KWP by the wrapper's `mac` key)."""

    wrapper: Wrapper
    context: bytes
    blob: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Wrapper:
    """What wraps key objects: a `kw` key, and the `mac` key that binds what KWP cannot."""

    kw: KeyHandle
    mac: KeyHandle


Buffer = bytes | memoryview
EMPTY: Final = b""


def _unsettled() -> Pending[bytes | int]:
    """Not `Pending[bytes | int]()`: subscripting a generic at run time costs ten times as much as the object."""
    return Pending()


@dataclass(slots=True, eq=False)
class Operation:
    """One hot operation. Input buffers must stay valid until it is settled.

    `into`: writable locked memory for an answer that is a secret; then the answer is its length.
    `room`: most bytes the answer can have. Without `into` the answer is `bytes` (public data only).
    `client`: who is served, for fair queues (connection number); 0 is the daemon itself.
    """

    code: OpCode
    room: int
    key: KeyHandle | None = None
    mechanism: Mechanism = Mechanism.NONE
    data: Buffer = EMPTY
    aad: Buffer = EMPTY
    param: Buffer = EMPTY
    into: memoryview | None = None
    client: int = 0
    expires: float = 0.0
    """Set by the lane, like `replays`: when it gives up (monotonic seconds), and how often a worker died under it."""
    replays: int = 0
    request: int = 0
    """Set by the lane, too: the count of the request that it is done for (openk_hsm.serving); 0: the daemon's own."""
    pending: Pending[bytes | int] = field(default_factory=_unsettled)


@dataclass(frozen=True, slots=True)
class Generated:
    """A fresh key: `blob` when wrapped (None when resident), `public` as SubjectPublicKeyInfo DER or None."""

    blob: bytes | None
    public: bytes | None


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    label: str
    id: bytes
    kind: str  # "secret", "private", "public", "data", "certificate"
    algorithm: str


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """`identity` is stable for this token (digest over serial, model and the root mac key's answer to a
    fixed question), so that a store can tell another HSM from its own. `mechanisms`: names of `Mechanism` that
    the token really does (SoftHSM 2.6.1 has RSA_OAEP_SHA_1 only)."""

    backend: str
    label: str
    serial: str
    model: str
    firmware: str
    identity: bytes
    resident: frozenset[KeySpec]
    wrapped: frozenset[KeySpec]
    mechanisms: tuple[str, ...]
    audit_public: bytes = b""
    """The audit key's SubjectPublicKeyInfo DER."""
    chosen: Mapping[str, str] = field(default_factory=dict[str, str])
    """What was negotiated with the token, for people: a job ("data", "key objects") to how the token does it."""
    data: Algorithm = Algorithm.AES_256_GCM
    """What a `data` key of root or a vault is here: AES_256_GCM, AES_256_CCM (mechanism WRAP_DATA) or AES_256_CBC_HMAC
    (mechanism AES_CBC_HMAC)."""
    audit: Algorithm | None = Algorithm.ED25519
    """What the audit key is here, or would be: one of `AUDIT_KEYS`. None where the token makes none of them."""
    resident_vaults: bool = False
    """Vault keys are token objects (`data` and `mac`; nothing is wrapped): the device imports no keys on demand."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a person must hear of a device, such as that somebody else used openk's keys. `number` grows from notice to
    notice of a device, over restarts too, and is positive; `at` is milliseconds since the epoch."""

    number: int
    at: int
    alarm: bool
    text: str


class Lane(Protocol):
    """The daemon's side: one HSM, one or more workers. All answers settle within the operation's deadline."""

    name: str

    def submit(self, operation: Operation) -> Pending[bytes | int]:
        """Queue a hot operation and return its `pending`. Errors arrive in it, as HsmError."""
        ...

    def generate(self, spec: KeySpec, wrapper: Wrapper, context: bytes) -> Pending[Generated]:
        """Make a key in the HSM and wrap it. Pure: nothing stays on the token."""
        ...

    def generate_resident(self, spec: KeySpec, label: str, id_: bytes) -> Pending[Generated]:
        """Make a token object. Journaled: after hsm.interrupted look with `objects`, then complete or destroy."""
        ...

    def destroy_resident(self, label: str, id_: bytes) -> Pending[bool]:
        """Destroy the token objects of that label and id; False when there were none. Idempotent, so pure."""
        ...

    def objects(self) -> Pending[Sequence[ObjectInfo]]: ...

    def attest(self, label: str, id_: bytes) -> Pending[Sequence[bytes]]:
        """Certificates (DER, leaf first) by which the device vouches for a resident key. Unsupported where the token
        cannot attest, or not such a key. Pure."""
        ...

    def notices(self, after: int) -> Pending[Sequence[Notice]]:
        """Notices with greater numbers than `after`, in order. Asked every few seconds by whoever runs the lane: then
        a worker also drains its device's log and keeps its session alive. Pure."""
        ...

    def info(self) -> Pending[TokenInfo]: ...

    def unload(self, key: KeyHandle) -> None:
        """The daemon will not use this handle again: workers may drop the session object."""
        ...

    def health(self) -> LaneHealth: ...


@runtime_checkable
class EarlyLoad(Protocol):
    """A back end that can load its vendor's code before the process confines itself: without token and PIN."""

    def load(self) -> None: ...


@runtime_checkable
class EarlyLogin(Protocol):
    """A back end that can log in before a daemon is there, so that the start is quick. `open` then asks for no PIN."""

    def log_in(self, pin: Callable[[], memoryview]) -> object: ...


@runtime_checkable
class Doubting(Protocol):
    """A back end whose device has codes that may mean a request's fault or its own trouble."""

    def judge(self, error: HsmError) -> HsmError:
        """The same error, or Unavailable when a known answer shows that it is the device that is in trouble."""
        ...


class Backend(Protocol):
    """The worker's side: one token, one thread, synchronous. Raises HsmError only (foreign errors are
    translated at this border). Hot methods take offsets into the hand-off region bound at `open`."""

    def open(self, region: memoryview, address: int, pin: Callable[[], memoryview]) -> TokenInfo:
        """Log in and find the root keys. `pin` gives locked memory, wiped by its owner after the call.

        Opened again (another daemon has connected) it forgets every key that was loaded and binds the new region.
        Root keys are then loaded in their slots.
        """
        ...

    def random(self, at: int, length: int) -> int: ...

    def mac(self, slot: int, mechanism: Mechanism, at: int, length: int, out: int, room: int) -> int: ...

    def sign(self, slot: int, mechanism: Mechanism, at: int, length: int, out: int, room: int) -> int: ...

    def encrypt(
        self,
        slot: int,
        mechanism: Mechanism,
        param: tuple[int, int],
        aad: tuple[int, int],
        data: tuple[int, int],
        out: int,
        room: int,
    ) -> int: ...

    def decrypt(
        self,
        slot: int,
        mechanism: Mechanism,
        param: tuple[int, int],
        aad: tuple[int, int],
        data: tuple[int, int],
        out: int,
        room: int,
    ) -> int: ...

    def agree(self, slot: int, at: int, length: int, out: int, room: int) -> int: ...

    def load_resident(self, slot: int, spec: KeySpec, label: str, id_: bytes) -> None: ...

    def load_wrapped(self, slot: int, spec: KeySpec, kw: int, mac: int, context: bytes, blob: bytes) -> None:
        """Verify the binding in the HSM, then unwrap into it, every attribute set and asserted."""
        ...

    def unload(self, slot: int) -> None: ...

    def generate(self, spec: KeySpec, kw: int, mac: int, context: bytes) -> Generated: ...

    def generate_resident(self, spec: KeySpec, label: str, id_: bytes) -> Generated: ...

    def destroy_resident(self, label: str, id_: bytes) -> bool: ...

    def objects(self) -> Sequence[ObjectInfo]: ...

    def attest(self, label: str, id_: bytes) -> Sequence[bytes]:
        """As `Lane.attest`. Raises Unsupported where the token cannot."""
        ...

    def notices(self, after: int) -> Sequence[Notice]:
        """As `Lane.notices`; none where the device keeps no log."""
        ...

    def health(self) -> Mapping[str, str]: ...

    def close(self) -> None: ...
