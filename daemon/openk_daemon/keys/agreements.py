"""Shared secrets: Diffie-Hellman in the HSM (P curves) or cached (X25519), ML-KEM cached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519

from openk_daemon.call import Sealed
from openk_daemon.hierarchy.refusals import refuse
from openk_daemon.keys import cached
from openk_daemon.keys.keyring import Keyring
from openk_daemon.keys.state import KeyState, KeyVersion
from openk_daemon.keys.suites import COORDINATE
from openk_daemon.keys.verifying import load_public
from openk_daemon.refusal import Refusal
from openk_hsm.errors import HsmError
from openk_hsm.pending import Pending, resolved
from openk_hsm.seam import Algorithm, Mechanism, OpCode, Operation
from openk_memory.errors import Exhausted
from openk_memory.lease import Lease
from openk_memory.pool import Pool

SHARED: Final = 32
"""Bytes of an ML-KEM shared secret (FIPS 203)."""
_X25519: Final = 32
_CURVES: Final[dict[Algorithm, ec.EllipticCurve]] = {
    Algorithm.P256: ec.SECP256R1(),
    Algorithm.P384: ec.SECP384R1(),
    Algorithm.P521: ec.SECP521R1(),
}


class Agreements:
    def __init__(self, keyring: Keyring, pool: Pool) -> None:
        self._openings = keyring.openings
        self._pool = pool
        self._submit = keyring.hierarchy.lane.submit

    async def agree(
        self, state: KeyState, version: KeyVersion, peers: Sequence[memoryview], client: int, owner: int
    ) -> list[Sealed | Refusal]:
        """The raw shared secret with each public key (SubjectPublicKeyInfo DER, or the raw point)."""
        size = COORDINATE[state.algorithm]
        waiting: list[tuple[Lease, Pending[bytes | int]] | Refusal] = []
        for peer in peers:
            try:
                point = peer_point(state.algorithm, bytes(peer))
                waiting.append(await self._agree_one(state, version, point, size, client, owner))
            except Refusal as refusal:
                waiting.append(refusal)
            except (HsmError, Exhausted) as error:
                waiting.append(refuse(error))
        return [
            element if isinstance(element, Refusal) else await _finish(element[0], element[1], size)
            for element in waiting
        ]

    async def _agree_one(
        self, state: KeyState, version: KeyVersion, point: bytes, size: int, client: int, owner: int
    ) -> tuple[Lease, Pending[bytes | int]]:
        handle = version.handle
        if handle is not None:
            lease = self._pool.lease(size, owner)
            operation = Operation(OpCode.AGREE, size, handle, Mechanism.ECDH, point, into=lease.view, client=client)
            return lease, self._submit(operation)
        material = await self._openings.material(state, version)
        lease = self._pool.lease(size, owner)
        try:
            cached.agree(state.algorithm, material, point, lease.view)
        except BaseException:
            lease.release()
            raise
        return lease, resolved(size)

    def encapsulate(self, version: KeyVersion, count: int, owner: int) -> list[tuple[bytes, Sealed] | Refusal]:
        """(ciphertext, shared secret), as often as asked. Needs the public key only."""
        if version.verifier is None:
            version.verifier = load_public(version.public or b"")
        public = version.verifier
        made: list[tuple[bytes, Sealed] | Refusal] = []
        for _ in range(count):
            if not isinstance(public, mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey):
                raise Refusal("key.unsuitable")
            try:
                lease = self._pool.lease(SHARED, owner)
            except Exhausted as error:
                made.append(refuse(error))
                continue
            made.append((cached.encapsulate(public, lease.view), Sealed(lease, SHARED)))
        return made

    async def decapsulate(
        self, state: KeyState, version: KeyVersion, ciphertexts: Sequence[memoryview], owner: int
    ) -> list[Sealed | Refusal]:
        opened: list[Sealed | Refusal] = []
        for ciphertext in ciphertexts:
            try:
                material = await self._openings.material(state, version)
                lease = self._pool.lease(SHARED, owner)
                try:
                    cached.decapsulate(state.algorithm, material, ciphertext, lease.view)
                except BaseException:
                    lease.release()
                    raise
            except Refusal as refusal:
                opened.append(refusal)
            except (HsmError, Exhausted) as error:
                opened.append(refuse(error))
            else:
                opened.append(Sealed(lease, SHARED))
        return opened


def peer_point(algorithm: Algorithm, public: bytes) -> bytes:
    """The other side's point, checked: 32 bytes for X25519, else uncompressed X9.62 and on the curve (SP 800-56A
    section 5.6.2.3.3; the curves have cofactor 1, so on the curve is enough). Raises Refusal(key.input_invalid)."""
    try:
        if algorithm is Algorithm.X25519:
            return public if len(public) == _X25519 else _raw_x25519(public)
        curve = _CURVES[algorithm]
        if public[:1] == b"\x30":
            key = serialization.load_der_public_key(public)
            if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != curve.name:
                raise ValueError("another kind of key")
        else:
            key = ec.EllipticCurvePublicKey.from_encoded_point(curve, public)
        return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refusal("key.input_invalid", f"not a public key of {algorithm.value}") from error


def _raw_x25519(der: bytes) -> bytes:
    key = serialization.load_der_public_key(der)
    if not isinstance(key, x25519.X25519PublicKey):
        raise ValueError("another kind of key")  # noqa: TRY004 - judged as a value by the caller
    return key.public_bytes_raw()


async def _finish(lease: Lease, pending: Pending[bytes | int], size: int) -> Sealed | Refusal:
    try:
        complete = await pending == size
    except HsmError as error:
        lease.release()
        return refuse(error)
    if not complete:
        lease.release()
        return Refusal("hsm.refused")
    return Sealed(lease, size)
