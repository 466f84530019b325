"""What an object is called on the device: 40 bytes for a label and an id that may be longer than that together.

    openk-root-mac                            label "openk-root-mac", id = the label's bytes
    openk-key-~AQIDBAUGBwgJCgsMDQ4PEAAAAAE    label "openk-key-" + hex of the id, id = 20 bytes
    other=aWQ                                 label "other", id = b"id"

The id is base64url without padding (RFC 4648 section 5), which has neither '~' nor '='.  Numeric object ids are the
device's own choice and mean nothing to openk: labels are looked up, and a label that is there twice is refused.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Final

from openk_hsm.errors import InvalidInput

LABEL_BYTES: Final = 40
OURS: Final = "openk-"
_HEX: Final = "~"
_PLAIN: Final = "="


def pack(label: str, id_: bytes) -> bytes:
    """The device's label, without its padding. Raises InvalidInput for a name that 40 bytes do not hold."""
    packed = _packed(label, id_).encode()
    if len(packed) > LABEL_BYTES or b"\0" in packed or not packed:
        raise InvalidInput(f"a YubiHSM's label has {LABEL_BYTES} bytes: {label!r} and its id need {len(packed)}")
    return packed


def _packed(label: str, id_: bytes) -> str:
    text = urlsafe_b64encode(id_).rstrip(b"=").decode()
    if label.encode() == id_ and label.startswith(OURS) and _HEX not in label and _PLAIN not in label:
        return label
    stem = label.removesuffix(id_.hex())
    if id_ and stem != label and label == stem + id_.hex():
        return f"{stem}{_HEX}{text}"
    return f"{label}{_PLAIN}{text}"


def unpack(packed: bytes, number: int) -> tuple[str, bytes]:
    """Label and id. An object that openk did not name has its own label, and its number (2 bytes) as the id."""
    label = packed.rstrip(b"\0").decode("utf-8", "replace")
    foreign = label, number.to_bytes(2, "big")
    if label.startswith(OURS) and _HEX not in label and _PLAIN not in label:
        return label, label.encode()
    separator = max(label.rfind(_HEX), label.rfind(_PLAIN))
    if separator < 0:
        return foreign
    stem, text = label[:separator], label[separator + 1 :]
    try:
        id_ = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (Base64Error, ValueError):
        return foreign
    named = (stem + id_.hex() if label[separator] == _HEX else stem), id_
    return named if _packed(*named).encode() == packed.rstrip(b"\0") else foreign
