"""`python -m tests.support.token_walk URI PIN_FILE`: the walk of `softhsm_walk` on another PKCS#11 token, in a process
of its own. The token has root keys."""

from __future__ import annotations

import sys
from pathlib import Path

from openk_hsm.inline import InlineLane
from openk_hsm.pkcs11.backend import Pkcs11Backend
from openk_hsm.uri import parse_uri
from tests.support.softhsm_walk import walk_over

if __name__ == "__main__":
    secret = bytearray(Path(sys.argv[2]).read_bytes().strip())
    walk_over(InlineLane(Pkcs11Backend(parse_uri(sys.argv[1])), pin=lambda: memoryview(secret)))
