"""A worker that finds a broken cuBLAS before any other (tests.support.changed)."""

import os
import sys

from tests.support.changed import start_worker

# The directory where it lies, as pip's packages do.
VARIABLE = "BROKEN_CUBLAS"

if __name__ == "__main__":
    sys.path.insert(0, os.environ[VARIABLE])
    sys.exit(start_worker())
