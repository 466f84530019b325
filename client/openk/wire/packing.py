"""msgpack's packer with a type: the one place of the SDK that names it (it ships no stubs)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgpack  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

pack: Final[Callable[[object], bytes]] = msgpack.Packer().pack  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
"""A value as MessagePack. Never give it a secret: it keeps a copy in its buffer. One packer for all (a new one for
each value costs three times the packing); it runs whole under the interpreter's lock."""
