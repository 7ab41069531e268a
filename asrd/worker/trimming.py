"""Memory that one job needed goes back to the system.

The allocator keeps freed memory (asrd.worker.environment), which makes every job faster. A job that
needed far more than the others would leave its worker that large.
"""

import ctypes
import os

# Jobs of ordinary files differ by less. To give back a gigabyte takes 250 ms.
_GROWN_BYTES = 256 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Trimmer:
    """Compares with what the process had when this was made."""

    def __init__(self) -> None:
        self._ordinary = resident()
        # musl has no such function, and gives back by itself.
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def after_job(self) -> bool:
        """Returns True if it gave memory back."""
        if self._trim is None or resident() - self._ordinary < _GROWN_BYTES:
            return False
        self._trim(0)
        self._ordinary = resident()
        return True


def resident() -> int:
    """The bytes of memory that the process occupies."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * _PAGE
