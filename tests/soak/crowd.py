"""The crowd: threads that play clients, each of which acts at random from a seed of its own."""

import ctypes
import os
import platform
import random
import threading
import time
import traceback
from collections.abc import Callable, Mapping

from tests.soak.honest import Context

Behaviour = Callable[[Context], None]

_REST_SECONDS = 1.5
# Each behaviour ends within its own time limits, so that only a hang lasts longer.
_LAST_SECONDS = 300.0


class Crowd:
    """`behaviours` have weights; no client does one that is in `withheld`."""

    def __init__(
        self,
        make: Callable[[random.Random, int], Context],
        seed: str,
        size: int,
        behaviours: Mapping[Behaviour, int],
    ) -> None:
        self._contexts = [make(random.Random(f"{seed} client {n}"), n) for n in range(size)]
        self._behaviours = list(behaviours)
        self._weights = list(behaviours.values())
        self._threads: list[threading.Thread] = []
        self.withheld: set[Behaviour] = set()

    def start(self, stop: threading.Event) -> None:
        for number, context in enumerate(self._contexts):
            thread = threading.Thread(
                target=self._live, args=(context, stop), name=f"client {number}"
            )
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        """Waits for the clients, once `stop` is set."""
        until = time.monotonic() + _LAST_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                self._contexts[0].ledger.fail(f"{thread.name} hangs")

    def _live(self, context: Context, stop: threading.Event) -> None:
        if context.uid is not None:
            _become(context.uid)
        while not stop.wait(context.chance.uniform(0, _REST_SECONDS)):
            behaviour = context.chance.choices(self._behaviours, self._weights)[0]
            if behaviour in self.withheld:
                continue
            context.ledger.trick(behaviour.__name__.strip("_"))
            try:
                behaviour(context)
            except (BrokenPipeError, ConnectionResetError) as error:
                if not context.ledger.striking("front"):
                    context.ledger.fail(f"{behaviour.__name__} was cut off: {error}")
            except Exception:
                context.ledger.fail(f"{behaviour.__name__} failed:\n{traceback.format_exc()}")


# The numbers of setresuid and setfsuid. glibc's own calls change all threads; to the kernel each
# thread has credentials, and SO_PEERCRED shows those of the thread that connects.
_CALLS = {"x86_64": (117, 122), "aarch64": (147, 151)}
_UNCHANGED = -1
_libc = ctypes.CDLL(None, use_errno=True)


def _become(uid: int) -> None:
    """Makes this thread a client of that user. It still opens files as root, since other users may
    not be able to read Python and the checkout."""
    setresuid, setfsuid = _CALLS[platform.machine()]
    if _libc.syscall(setresuid, _UNCHANGED, uid, _UNCHANGED) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    _libc.syscall(setfsuid, 0)
