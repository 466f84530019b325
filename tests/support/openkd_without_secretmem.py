"""`openkd` on a kernel without memfd_secret: its locked memory can then be read by the scan, too.

python tests/support/openkd_without_secretmem.py --dev DIR
"""

from __future__ import annotations

import errno
import os
import sys

from openk_memory import seccomp


def main() -> None:
    library = seccomp.library()
    context = library.seccomp_init(seccomp.ALLOW)
    assert seccomp._deny(context, "memfd_secret", errno.ENOSYS)
    assert library.seccomp_load(context) == 0
    os.execv(sys.executable, [sys.executable, "-m", "openk_daemon", *sys.argv[1:]])


if __name__ == "__main__":
    main()
