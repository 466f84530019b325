"""How bytes reach a device: yubihsm-connector's HTTP interface, or USB. Frames only; nothing secret is in clear here.

Both are back ends of the `yubihsm` package (`YhsmBackend`).  HTTP is our own, small: the package's needs `requests`,
heeds proxies from the environment and takes three times as long.  USB is the package's, and needs `pyusb`.
"""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from socket import socket
from typing import Final, cast

from yubihsm.backends import YhsmBackend
from yubihsm.exceptions import YubiHsmConnectionError

from openk_hsm.errors import HsmError, TokenMissing
from openk_hsm.uri import HsmUri

PATH: Final = "/connector/api"
ANSWER_WITHIN: Final = 90.0
"""Seconds: longer than any command takes (RSA-4096 keys take most of a minute). A worker's alarm is shorter."""
CONNECT_WITHIN: Final = 3.0
MAX_FRAME: Final = 4096
_HEADERS: Final = {"Content-Type": "application/octet-stream"}


class Connector(YhsmBackend):
    """One HTTP/1.1 connection to a yubihsm-connector, made when needed and kept."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = HTTPConnection(host, port, timeout=CONNECT_WITHIN)

    def transceive(self, msg: bytes) -> bytes:
        """Raises YubiHsmConnectionError: the frame may or may not have reached the device."""
        connection = self._connection
        try:
            if cast("socket | None", connection.sock) is None:
                connection.connect()
                cast(socket, connection.sock).settimeout(ANSWER_WITHIN)
            connection.request("POST", PATH, msg, _HEADERS)
            answer = connection.getresponse()
            frame = answer.read(MAX_FRAME)
            if answer.status != 200 or not answer.isclosed():
                raise HTTPException(f"the connector answered {answer.status}")
        except (OSError, HTTPException) as error:
            self.close()
            raise YubiHsmConnectionError(f"{type(error).__name__}: {error}") from None
        return frame

    def close(self) -> None:
        self._connection.close()


def open_transport(uri: HsmUri) -> YhsmBackend:
    """Nothing is sent yet. Raises HsmError where USB cannot be used, TokenMissing where no such device is there."""
    if "host" in uri.path:
        return Connector(uri.path["host"], int(uri.path["port"]))
    return _open_usb(uri.path.get("serial", ""))


def _open_usb(serial: str) -> YhsmBackend:
    try:
        from yubihsm.backends.usb import UsbBackend  # noqa: PLC0415 - pyusb is not there unless it is wanted
    except ImportError:
        raise HsmError(
            "a YubiHSM on USB needs pyusb and libusb: install `openkd[usb]`, or use yubihsm:http: with a connector"
        ) from None
    try:
        return UsbBackend(int(serial) if serial else None, timeout=int(ANSWER_WITHIN))
    except YubiHsmConnectionError as error:
        wanted = f"with serial {serial}" if serial else "at all"
        raise TokenMissing(f"no YubiHSM {wanted} on USB, or no permission to use it ({error})") from None
    except ValueError as error:  # pyusb without libusb: NoBackendError is a ValueError
        raise HsmError(f"pyusb cannot be used: {error}") from None
