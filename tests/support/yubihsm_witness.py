"""A YubiHSM whose session keys a test may know: the emulator, in the test's own process.

The emulator shares no code with openk, so what it derived from its own authentication key and both challenges (or by its own
Diffie-Hellman) is not the word of the code that is tested.

with witnessed() as (device, witness):
    ...                                  a worker logs in
    scan(worker.pid, witness.needles(-1))
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

from tests.support.yubihsm import ReachableDevice
from yubihsm_emulator.channel import Channel, Keys
from yubihsm_emulator.codes import ERROR, Command
from yubihsm_emulator.device import Device
from yubihsm_emulator.door import Door
from yubihsm_emulator.link import Link

_NUMBER = 3
"""Where the answer to CREATE SESSION, symmetric or not, has the session's number."""


class Witness(Link):
    """`sessions`: the keys of each session that was begun, in that order."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.sessions: list[Keys] = []

    def transceive(self, frame: bytes) -> bytes:
        reply = super().transceive(frame)
        if frame[0] == Command.CREATE_SESSION and reply[0] != ERROR:
            state = self._processor.sessions.get(reply[_NUMBER]).state
            self.sessions.append(state._keys if isinstance(state, Channel) else state.keys)
        return reply

    def needles(self, session: int) -> list[bytes]:
        """S-ENC, S-MAC and S-RMAC of the session with this index."""
        keys = self.sessions[session]
        return [keys.enc, keys.mac, keys.rmac]


@contextmanager
def witnessed() -> Generator[tuple[ReachableDevice, Witness]]:
    """A device as it leaves the factory."""
    witness = Witness(Device(12345678))
    with Door(("127.0.0.1", 0), witness) as door:
        serving = threading.Thread(target=door.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        try:
            yield ReachableDevice(door.address[1]), witness
        finally:
            door.shutdown()
            serving.join()
