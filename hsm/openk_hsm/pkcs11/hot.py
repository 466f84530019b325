"""Hot operations: two calls into the module each, straight from and into the hand-off region.

Everything that a call points at is made once (mechanisms, the cell for lengths); per call there are offsets only.
"""

from __future__ import annotations

import ctypes
from typing import Final

from openk_hsm.errors import HsmError, InvalidCiphertext, InvalidInput, Unavailable, Unsupported
from openk_hsm.pkcs11 import codes
from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.composite import PAIR, Composite
from openk_hsm.pkcs11.known_answer import KnownAnswer
from openk_hsm.pkcs11.mechanisms import DIGEST_INFO, Mechanisms
from openk_hsm.pkcs11.module import Attribute, Module, Template, Ulong
from openk_hsm.pkcs11.templates import SHARED_SECRET
from openk_hsm.seam import Algorithm, KeySpec, Mechanism, OpCode
from openk_hsm.specs import COORDINATE_BYTES, DIGEST_BYTES, GCM_NONCE, GCM_TAG, MECHANISMS, OPCODES

Span = tuple[int, int]
_PAIRED: Final = Mechanism.AES_CBC_HMAC


class Hot:
    """`keys`: slot to (object handle, spec, the operations allowed). `keys` is filled by the back end."""

    def __init__(self, module: Module, session: int, base: int, known: KnownAnswer) -> None:
        self._known = known
        self._module = module
        self._session = Ulong(session)
        self._base = base
        self._mechanisms = Mechanisms()
        self._address = self._mechanisms.address
        self._gcm = self._mechanisms.gcm
        self._length = Ulong()
        self._cell = ctypes.addressof(self._length)
        self._handle = Ulong()
        self._scratch = ctypes.create_string_buffer(128)
        self._shared = {size: _shared_template(size) for size in COORDINATE_BYTES.values()}
        self._composite = Composite(module, session, base)
        self._pairs = self._composite.pairs
        self.keys: dict[int, tuple[int, KeySpec]] = {}
        self._sign_init = module.sign_init
        self._sign = module.sign
        self._macs: dict[int, tuple[int, int, int, int]] = {}  # slot to mechanism, its address, handle, answer's length
        self._signs: dict[tuple[int, int], int] = {}

    def add(self, slot: int, handle: int, spec: KeySpec) -> None:
        """Make a key usable, for what its spec allows and nothing else."""
        self.keys[slot] = (handle, spec)
        for mechanism in MECHANISMS.get(spec, ()):
            if OpCode.MAC in OPCODES[mechanism]:
                self._macs[slot] = (mechanism, self._address[mechanism], handle, DIGEST_BYTES[mechanism])
            elif OpCode.SIGN in OPCODES[mechanism]:
                self._signs[slot, mechanism] = handle

    def add_pair(self, slot: int, handle: int, mac: int) -> None:
        """Make an AES_256_CBC_HMAC key usable: its two keys on the token."""
        self.keys[slot] = (handle, PAIR)
        self._composite.pairs[slot] = (handle, mac)

    def second_of(self, slot: int) -> int | None:
        """The second key's handle, of a pair."""
        pair = self._composite.pairs.get(slot)
        return None if pair is None else pair[1]

    def remove(self, slot: int) -> int | None:
        """Forget a key; its object handle."""
        found = self.keys.pop(slot, None)
        if found is None:
            return None
        self._macs.pop(slot, None)
        self._composite.pairs.pop(slot, None)
        for mechanism in MECHANISMS.get(found[1], ()):
            self._signs.pop((slot, mechanism), None)
        return found[0]

    def random(self, at: int, length: int) -> int:
        code = self._module.generate_random(self._session, self._base + at, length)
        if code:
            raise codes.error_of(code, "C_GenerateRandom")
        return length

    def mac(self, slot: int, mechanism: Mechanism, at: int, length: int, out: int, room: int) -> int:
        key = self._macs.get(slot)
        if key is None or key[0] != mechanism:
            raise self._unfit(slot)
        if room < key[3]:
            raise InvalidInput("the answer does not fit")
        session = self._session
        code = self._sign_init(session, key[1], key[2])
        if not code:
            cell = self._length
            cell.value = room
            base = self._base
            code = self._sign(session, base + at, length, base + out, self._cell)
            if not code:
                return cell.value
        raise codes.error_of(code, "C_Sign with HMAC")

    def mac_of(self, slot: int, message: bytes) -> bytes:
        """HMAC-SHA-256 of a public message that is not in the region; the answer is public too."""
        handle = self.keys[slot][0]
        answer = ctypes.create_string_buffer(32)
        code = self._module.sign_init(self._session, self._address[Mechanism.HMAC_SHA_256], handle)
        codes.check(code, "C_SignInit")
        self._length.value = len(answer)
        code = self._module.sign(self._session, message, len(message), ctypes.addressof(answer), self._cell)
        codes.check(code, "C_Sign with HMAC")
        return answer.raw

    def sign(self, slot: int, mechanism: Mechanism, at: int, length: int, out: int, room: int) -> int:
        handle = self._signs.get((slot, mechanism))
        if handle is None:
            raise self._unfit(slot)
        address = self._base + at
        if mechanism >= Mechanism.RSA_PKCS1_SHA_256:
            if length != DIGEST_BYTES[mechanism]:
                raise InvalidInput("RSA signs a digest of its hash's length")
            prefix = DIGEST_INFO.get(mechanism)
            if prefix is not None:
                scratch = ctypes.addressof(self._scratch)
                ctypes.memmove(scratch, prefix, len(prefix))
                ctypes.memmove(scratch + len(prefix), address, length)
                address, length = scratch, length + len(prefix)
        module, session, cell = self._module, self._session, self._length
        code = module.sign_init(session, self._address[mechanism], handle)
        if not code:
            cell.value = room
            code = module.sign(session, address, length, self._base + out, self._cell)
            if not code:
                return cell.value
        raise codes.error_of(code, "C_Sign")

    def encrypt(self, slot: int, mechanism: Mechanism, param: Span, aad: Span, data: Span, out: int, room: int) -> int:
        if mechanism is _PAIRED and slot in self._pairs:
            return self._composite.encrypt(slot, param, aad, data, out, room)
        handle = self._handle_for(slot, mechanism, OpCode.ENCRYPT)
        if room < data[1] + GCM_TAG:
            raise InvalidInput("the answer does not fit")
        self._set_gcm(param, aad)
        base, cell = self._base, self._length
        code = self._module.encrypt_init(self._session, self._address[mechanism], handle)
        if not code:
            cell.value = room
            code = self._module.encrypt(self._session, base + data[0], data[1], base + out, self._cell)
            if not code:
                return cell.value
        raise codes.error_of(code, "C_Encrypt")

    def decrypt(self, slot: int, mechanism: Mechanism, param: Span, aad: Span, data: Span, out: int, room: int) -> int:
        if mechanism is _PAIRED and slot in self._pairs:
            return self._composite.decrypt(slot, param, aad, data, out, room)
        handle = self._handle_for(slot, mechanism, OpCode.DECRYPT)
        if mechanism is Mechanism.AES_GCM:
            if data[1] < GCM_TAG:
                raise InvalidCiphertext("a GCM ciphertext is shorter than its tag")
            self._set_gcm(param, aad)
        if room < data[1]:
            raise InvalidInput("the answer does not fit")  # tokens want room for the ciphertext's length
        base, cell = self._base, self._length
        code = self._module.decrypt_init(self._session, self._address[mechanism], handle)
        if code:
            if code == codes.CKR_ARGUMENTS_BAD:  # SoftHSM2 on an OAEP hash that it does not do
                raise Unsupported("the token does not decrypt with this mechanism", device=codes.name_of(code))
            raise codes.error_of(code, "C_DecryptInit")
        cell.value = room
        code = self._module.decrypt(self._session, base + data[0], data[1], base + out, self._cell)
        if not code:
            return cell.value
        ctypes.memset(base + out, 0, room)
        raise self._blame(code)

    def agree(self, slot: int, at: int, length: int, out: int, room: int) -> int:
        """ECDH with cofactor 1 (SP 800-56A): the shared x, big-endian and whole, or RFC 7748's 32 bytes."""
        handle = self._handle_for(slot, Mechanism.ECDH, OpCode.AGREE)
        algorithm = self.keys[slot][1].algorithm
        size = COORDINATE_BYTES[algorithm]
        self._check_point(algorithm, at, length, size)
        if room < size:
            raise InvalidInput("the answer does not fit")
        template = self._shared[size]
        ecdh = self._mechanisms.ecdh
        ecdh.public_length, ecdh.public = length, self._base + at
        address = self._address[Mechanism.ECDH]
        shared = ctypes.addressof(self._handle)
        code = self._module.derive_key(self._session, address, handle, template.array, template.count, shared)
        if code in codes.BAD_POINT and self.answers():
            raise InvalidInput("a peer's point is not on the key's curve", device=codes.name_of(code))
        codes.check(code, "C_DeriveKey")
        cell = Attribute(ck.CKA_VALUE, self._base + out, room)
        try:
            read = self._module.get_attribute_value(self._session, self._handle, ctypes.byref(cell), 1)
        finally:
            gone = self._module.destroy_object(self._session, self._handle)
        codes.check(read, "C_GetAttributeValue of a shared secret")
        codes.check(gone, "C_DestroyObject of a shared secret")
        if cell.length != size:
            raise HsmError("the token gave a shared secret of the wrong size")
        return size

    def _check_point(self, algorithm: Algorithm, at: int, length: int, size: int) -> None:
        montgomery = algorithm is Algorithm.X25519
        first = ctypes.c_ubyte.from_address(self._base + at).value if length else 0
        if length != (size if montgomery else 1 + 2 * size) or (not montgomery and first != 4):
            raise InvalidInput("a peer's point is uncompressed X9.62 of the key's curve, or 32 bytes for X25519")

    def _set_gcm(self, param: Span, aad: Span) -> None:
        if param[1] != GCM_NONCE:
            raise InvalidInput("an AES-GCM nonce has 12 bytes")
        gcm = self._gcm
        gcm.iv = self._base + param[0]
        gcm.aad = self._base + aad[0] if aad[1] else None
        gcm.aad_length = aad[1]

    def _handle_for(self, slot: int, mechanism: Mechanism, code: OpCode) -> int:
        found = self.keys.get(slot)
        if found is None or mechanism not in MECHANISMS.get(found[1], ()) or code not in OPCODES[mechanism]:
            raise self._unfit(slot)
        return found[0]

    def _unfit(self, slot: int) -> HsmError:
        if slot not in self.keys:
            return HsmError(f"no key is loaded in slot {slot}", device="CKR_KEY_HANDLE_INVALID")
        return InvalidInput("the key is not for this mechanism", device="CKR_KEY_FUNCTION_NOT_PERMITTED")

    def _blame(self, code: int) -> HsmError:
        """Ask the device something whose answer is known before saying whose fault an ambiguous code is."""
        if code not in codes.AMBIGUOUS:
            return codes.error_of(code, "C_Decrypt")
        if self.answers():
            return InvalidCiphertext("the ciphertext does not open", device=codes.name_of(code))
        return Unavailable("the token fails a known-answer decryption", device=codes.name_of(code))

    def answers(self) -> bool:
        """Whether the device still decrypts the known answer."""
        return self._known.holds()


def _shared_template(size: int) -> Template:
    return Template([*SHARED_SECRET, (ck.CKA_VALUE_LEN, size)])
