from yubihsm_emulator.errors import DeviceError, ErrorCode


class Reader:
    """Takes fixed-size big-endian fields off the front of a request's data; too few bytes are WRONG LENGTH."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def remaining(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise DeviceError(ErrorCode.WRONG_LENGTH)
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def u8(self) -> int:
        return self.number(1)

    def u16(self) -> int:
        return self.number(2)

    def u32(self) -> int:
        return self.number(4)

    def u64(self) -> int:
        return self.number(8)

    def rest(self) -> bytes:
        """All that is left, possibly nothing."""
        return self.take(self.remaining)

    def tail(self, size: int) -> bytes:
        """Takes the *last* `size` bytes off the end (label hashes of the RSA commands stand there)."""
        if size > self.remaining:
            raise DeviceError(ErrorCode.WRONG_LENGTH)
        cut = len(self._data) - size
        taken = self._data[cut:]
        self._data = self._data[:cut]
        return taken

    def end(self) -> None:
        """Nothing may be left."""
        if self.remaining:
            raise DeviceError(ErrorCode.WRONG_LENGTH)
