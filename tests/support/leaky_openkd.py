"""`openkd` and its worker, breaking the rules on purpose: the control of every search for secrets.

    python tests/support/leaky_openkd.py --dev DIR

A secret that is put as VAULT/leak-FORM stays in the daemon's heap in that form. The worker keeps the PIN as text, and
what it is to encrypt where that begins with MARK and the name of a form: `MARK + "hex     " + secret`.
"""

from __future__ import annotations

import base64
import ctypes
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.aes_schedule import expand

if TYPE_CHECKING:
    from openk_hsm.pkcs11.hot import Span
    from openk_hsm.seam import Mechanism

KEPT: Final[list[object]] = []
"""What should not be here."""


MARK: Final = b"leak:"


def _log(secret: bytes) -> None:
    print(secret.hex(), file=sys.stderr, flush=True)


def _backlog(secret: bytes) -> object:
    """Sent to a socket from which nobody reads."""
    left, right = socket.socketpair()
    left.send(b"." + secret)
    return left, right


def _unnamed(secret: bytes) -> object:
    """In a file that has no name any more."""
    path = _folder() / "state" / "unnamed"
    path.write_bytes(secret)
    kept = path.open("rb")
    path.unlink()
    return kept


def _store(secret: bytes) -> None:
    _folder().joinpath("state", "note").write_bytes(secret)


def _folder() -> Path:
    """All that the confined daemon can write is in here."""
    return Path(sys.argv[sys.argv.index("--dev") + 1])


FORMS: Final[dict[str, Callable[[bytes], object]]] = {
    "raw": lambda secret: b"." + secret,
    "piece": lambda secret: b"." + secret[8:16],
    "reversed": lambda secret: secret[::-1],
    "hex": lambda secret: secret.hex(),
    "base64": lambda secret: base64.b64encode(b"." + secret),
    "schedule": lambda secret: b"".join(expand(secret)[2:]),
    "backlog": _backlog,
    "unnamed": _unnamed,
    "log": _log,
    "store": _store,
    "temp": lambda secret: _folder().joinpath("note.tmp").write_bytes(secret),
}


IN_WORKER: Final = ("raw", "piece", "reversed", "hex", "base64", "schedule", "backlog")
"""Of these, what a worker that is confined to its token can do."""


def leak_in_daemon() -> None:
    from openk_daemon.call import Call, Outcome  # noqa: PLC0415 - one process needs one of them
    from openk_daemon.handlers.secrets import SecretHandlers  # noqa: PLC0415 - one process needs one of them

    kept = SecretHandlers.put

    async def put(self: SecretHandlers, call: Call) -> Outcome:
        _, leak, form = call.arguments.text("secret").partition("leak-")
        value = call.arguments.optional_view("value")
        if leak and value is not None:
            KEPT.append(FORMS[form](bytes(value)))
        return await kept(self, call)

    SecretHandlers.put = put  # type: ignore[method-assign]


def leak_in_worker() -> None:
    from openk_hsm.pin import PinSource  # noqa: PLC0415 - one process needs one of them

    kept = PinSource.read

    @contextmanager
    def read(self: PinSource) -> Generator[memoryview]:
        with kept(self) as pin:
            KEPT.append("PIN " + bytes(pin).decode())
            yield pin

    PinSource.read = read  # type: ignore[method-assign]
    from openk_hsm.pkcs11.hot import Hot  # noqa: PLC0415 - as above

    encrypt = Hot.encrypt

    def leaky(
        self: Hot, slot: int, mechanism: Mechanism, param: Span, aad: Span, data: Span, out: int, room: int
    ) -> int:
        content = ctypes.string_at(self._base + data[0], data[1])
        if content.startswith(MARK):
            form, secret = content[len(MARK) : len(MARK) + 8].decode().strip(), content[len(MARK) + 8 :]
            KEPT.append(FORMS[form](secret))
        del content
        return encrypt(self, slot, mechanism, param, aad, data, out, room)

    Hot.encrypt = leaky  # type: ignore[method-assign]


def main() -> int:
    if sys.argv[1] == "worker":
        del sys.argv[1]
        leak_in_worker()
        from openk_hsm.cli import main as work  # noqa: PLC0415 - one process needs one of them

        return work()
    from openk_daemon import cli  # noqa: PLC0415 - one process needs one of them

    if "--supervised" in sys.argv:
        leak_in_daemon()
    else:
        cli._python = _python
    return cli.main()


def _python(module: str) -> list[str]:
    return [sys.executable, "-sP", __file__, *(["worker"] if module == "openk_hsm" else [])]


if __name__ == "__main__":
    sys.exit(main())
