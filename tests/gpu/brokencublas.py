"""A worker that finds a broken cuBLAS before any other (tests.support.changed)."""

import os
import sys

from tests.support.changed import start_worker

# Names the directory that contains it, laid out as pip's packages.
VARIABLE = "BROKEN_CUBLAS"

if __name__ == "__main__":
    sys.path.insert(0, os.environ[VARIABLE])
    sys.exit(start_worker())
