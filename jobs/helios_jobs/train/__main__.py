"""`python -m helios_jobs.train`: one stage of a curriculum, as a cell starts it (docs/reference/runtime.md)."""

import os
import sys

from helios_jobs.train.driver import run

if __name__ == "__main__":
    sys.exit(run(os.environ))
