import sys

from yubihsm_emulator.cli import main

if __name__ == "__main__":
    sys.exit(main())
