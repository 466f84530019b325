import fcntl
import os
import time

from yubihsm_emulator.device import Clock, Device, Random
from yubihsm_emulator.state import StateError, pack, unpack


class StateFile:
    """Where a device survives its process. One process at a time: a lock on the file's `.lock` sibling, until `close`.

    `StateError` when another has it, or what is there is no device.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder = os.path.dirname(os.path.abspath(path))
        self._lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise StateError(f"{path} belongs to another emulator that is running") from None

    def load(self, *, clock: Clock = time.monotonic, random: Random = os.urandom) -> Device | None:
        """The device as last saved; None where there is no file yet."""
        try:
            with open(self._path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        try:
            return unpack(data, clock=clock, random=random)
        except StateError as error:
            raise StateError(f"{self._path}: {error}") from error

    def save(self, device: Device) -> None:
        """Replaces the file (mode 0600) in one step; on disk when it returns."""
        fresh = f"{self._path}.new"
        descriptor = os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(pack(device))
            file.flush()
            os.fsync(descriptor)
        os.rename(fresh, self._path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        os.close(self._lock)
