"""`python -m helios_jobs.evaluate`."""

import sys

from helios_jobs.evaluate.command import main

if __name__ == "__main__":
    sys.exit(main())
