"""`python -m openk_daemon`: the same as `openkd`."""

import sys

from openk_daemon.cli import main

if __name__ == "__main__":
    sys.exit(main())
