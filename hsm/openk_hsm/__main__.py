"""`python -m openk_hsm`: the same as `openk-hsm`."""

import sys

from openk_hsm.cli import main

if __name__ == "__main__":
    sys.exit(main())
