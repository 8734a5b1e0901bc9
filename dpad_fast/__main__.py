"""`python -m dpad_fast` is `dpad-fast`, for launchers that start a module: `accelerate launch -m dpad_fast train`."""

import sys

from dpad_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
