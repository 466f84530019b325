"""Run by a .pth file in every process of the venv, before anything else: see `measured.py`."""

import sys

# `coverage run` measures itself; and a .pth file may be read twice.
if "tests.support.measured" not in sys.modules and not any("coverage" in argument for argument in sys.orig_argv):
    sys.path.append(__file__.removesuffix("/tests/support/measured_hook.py"))
    from tests.support.measured import start

    sys.path.pop()
    start()
