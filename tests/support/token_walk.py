"""`python -m tests.support.token_walk URI PIN_FILE [further]`: the walk of `softhsm_walk` on another PKCS#11 token, in a
process of its own. The token has root keys. `further`: the home HSM is another one, with the audit key."""

from __future__ import annotations

import sys
from pathlib import Path

from openk_hsm.inline import InlineLane
from openk_hsm.pkcs11.backend import Pkcs11Backend
from openk_hsm.software import SoftwareBackend
from openk_hsm.uri import parse_uri
from tests.support.softhsm_walk import walk_over

if __name__ == "__main__":
    uri, pin_file, *more = sys.argv[1:]
    secret = bytearray(Path(pin_file).read_bytes().strip())
    lane = InlineLane(Pkcs11Backend(parse_uri(uri)), pin=lambda: memoryview(secret))
    walk_over(lane, InlineLane(SoftwareBackend(allow=True)) if more else None)
