"""``python -m fcnkern``: the command line, also for ``torchrun --module fcnkern``."""

import sys

from fcnkern.cli import main

sys.exit(main())
