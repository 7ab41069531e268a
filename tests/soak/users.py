"""Clients that are several users at once, as threads of one process: to the kernel a thread has
credentials of its own, and SO_PEERCRED is those of whoever connects. (glibc's calls would change
all threads.)"""

import ctypes
import os
import platform

# setgroups, setresgid, setresuid
_CALLS = {"x86_64": (116, 119, 117), "aarch64": (159, 149, 147)}
_UNCHANGED = -1

_libc = ctypes.CDLL(None, use_errno=True)


def become(uid: int, gid: int) -> None:
    """This thread, from now on and for good; its one other group is none."""
    setgroups, setresgid, setresuid = _CALLS[platform.machine()]
    _call(setgroups, 0, None)
    _call(setresgid, _UNCHANGED, gid, _UNCHANGED)
    _call(setresuid, _UNCHANGED, uid, _UNCHANGED)


def _call(number: int, *arguments: int | None) -> None:
    if _libc.syscall(number, *arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
