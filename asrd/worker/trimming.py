"""Returns memory to the system after a job that needed far more than the others.

The allocator keeps freed memory (asrd.worker.environment), which makes every job faster. Without
this, the worker would stay as large as its largest job.
"""

import ctypes
import os

# Jobs of ordinary files differ by less. To return a gigabyte takes 250 ms.
_GROWN_BYTES = 256 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Trimmer:
    """Compares the memory of the process with what it had when this object was made."""

    def __init__(self) -> None:
        self._ordinary = resident()
        # musl has no such function, and returns memory by itself.
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def after_job(self) -> bool:
        """Returns True if memory was returned."""
        if self._trim is None or resident() - self._ordinary < _GROWN_BYTES:
            return False
        self._trim(0)
        self._ordinary = resident()
        return True


def resident() -> int:
    """Returns the bytes of memory that the process occupies."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * _PAGE
