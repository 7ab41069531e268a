"""The end of other programs' processes, where `asrd run` is the first process of a container.

The kernel makes a process whose parent has ended a child of the first one (`docker exec … &`). If
nobody waits for it, it stays a zombie as long as the container runs.
"""

import os
import signal
from collections.abc import Callable, Collection

import anyio

# Time for the task of a process of our own to take its exit code.
_OWN_SECONDS = 0.05


async def reap_orphans(own: Callable[[], Collection[int | None]]) -> None:
    """Waits for children that have ended, except those that `own` returns. Never returns."""
    with anyio.open_signal_receiver(signal.SIGCHLD) as signals:
        # For those that ended before.
        await _reap(own)
        async for _ in signals:
            await _reap(own)


async def _reap(own: Callable[[], Collection[int | None]]) -> None:
    while (pid := _ended()) is not None:
        if pid in own():
            await anyio.sleep(_OWN_SECONDS)
        else:
            os.waitpid(pid, 0)


def _ended() -> int | None:
    """Returns a child that has ended, and leaves its exit code where it is."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid
