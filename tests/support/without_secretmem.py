"""A process of openk on a kernel without memfd_secret: its locked memory can then be read by the scan, too.

python tests/support/without_secretmem.py PROGRAM ARGUMENT...
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
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
