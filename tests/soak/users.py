"""Clients that are several users at once, as threads of one process: to the kernel a thread has
credentials of its own, and SO_PEERCRED is those of whoever connects. (glibc's calls would change
all threads.)"""

import ctypes
import os
import platform

# setresuid, setfsuid
_CALLS = {"x86_64": (117, 122), "aarch64": (147, 151)}
_UNCHANGED = -1

_libc = ctypes.CDLL(None, use_errno=True)


def become(uid: int) -> None:
    """This thread, from now on, to every peer; files it still opens as root, since Python and the
    checkout may lie where no other user may look."""
    setresuid, setfsuid = _CALLS[platform.machine()]
    if _libc.syscall(setresuid, _UNCHANGED, uid, _UNCHANGED) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    _libc.syscall(setfsuid, 0)
