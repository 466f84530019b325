"""A detector of ours for detect-secrets, which knows no PINs. Loaded by its path: imports nothing of this repository."""

from __future__ import annotations

import re

from detect_secrets.plugins.base import RegexBasedDetector


class PinDetector(RegexBasedDetector):
    """What is assigned to a pin, given to an option of that name, or in a PKCS#11 URI; not names of files and fields.

    What is reported is the whole match: a filter of detect-secrets drops a value without letters."""

    secret_type = "PIN"
    denylist = (
        re.compile(r"""(?i)(?<![a-z])pin["']?\s*[:=]\s*b?["'][^"'\s{}<>$/()\\]{4,}["']"""),
        re.compile(r"""(?i)--(?:so-|user-|new-)?pin[=\s]+["']?[0-9]{4,}"""),
        re.compile(r"""(?i)pin-value=[^&;"'\s{}<>$]{4,}"""),
    )
