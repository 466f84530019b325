"""The composition root: the only place that names concrete classes and joins them.

Order at the start:
    locked memory proves itself ─▶ policies are read ─▶ sockets are bound ─▶ the process confines itself      `ground`
    (one thread yet) ─▶ store (its commit thread) ─▶ lane ─▶ audit log recovers ─▶ keys recover ─▶ ready      `opening`
At the stop the same way back: clients drain, the head of the log is signed, store and lane close.
"""

from __future__ import annotations

from openk_daemon.tampering import Traced
from openk_daemon.wiring.daemon import Daemon
from openk_daemon.wiring.ground import Ground, prepare
from openk_daemon.wiring.opening import opened

__all__ = ["Daemon", "Ground", "Traced", "opened", "prepare"]
