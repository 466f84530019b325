from yubihsm_emulator.link import Link, LinkLost


class EmulatorBackend:
    """The emulator as a back end of the `yubihsm` package, in the same process: `YubiHsm(EmulatorBackend(link))`.

    `failure` is what a lost frame raises: give `yubihsm.exceptions.YubiHsmConnectionError` to code that catches it.
    """

    def __init__(self, link: Link, failure: type[Exception] = ConnectionError) -> None:
        self._link = link
        self._failure = failure

    def transceive(self, msg: bytes) -> bytes:
        """The reply to one frame."""
        try:
            return self._link.transceive(msg)
        except LinkLost as lost:
            raise self._failure(str(lost)) from lost

    def close(self) -> None:
        """Nothing to close: the device goes on."""
