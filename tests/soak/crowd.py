"""The clients: threads that do one thing after another, each at random from a seed of its own."""

import random
import threading
import time
import traceback
from collections.abc import Callable, Mapping

from tests.soak.honest import Context

Behaviour = Callable[[Context], None]

_REST_SECONDS = 1.5
# Whatever a client does ends within its own time limits; this is for one that hangs.
_LAST_SECONDS = 150.0


class Crowd:
    """`behaviours` by weight."""

    def __init__(
        self,
        make: Callable[[random.Random], Context],
        seed: str,
        size: int,
        behaviours: Mapping[Behaviour, int],
    ) -> None:
        self._contexts = [make(random.Random(f"{seed} client {n}")) for n in range(size)]
        self._behaviours = list(behaviours)
        self._weights = list(behaviours.values())
        self._threads: list[threading.Thread] = []

    def start(self, stop: threading.Event) -> None:
        for number, context in enumerate(self._contexts):
            thread = threading.Thread(
                target=self._live, args=(context, stop), name=f"client {number}"
            )
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        """Once `stop` is set."""
        until = time.monotonic() + _LAST_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                self._contexts[0].ledger.fail(f"{thread.name} hangs")

    def _live(self, context: Context, stop: threading.Event) -> None:
        while not stop.wait(context.chance.uniform(0, _REST_SECONDS)):
            behaviour = context.chance.choices(self._behaviours, self._weights)[0]
            context.ledger.trick(behaviour.__name__.strip("_"))
            try:
                behaviour(context)
            except (BrokenPipeError, ConnectionResetError) as error:
                self._cut_off(context, behaviour, error)
            except Exception:
                context.ledger.fail(f"{behaviour.__name__} failed:\n{traceback.format_exc()}")

    def _cut_off(self, context: Context, behaviour: Behaviour, error: OSError) -> None:
        now = time.monotonic()
        if not any(f.target == "front" and f.start <= now <= f.end for f in context.ledger.faults):
            context.ledger.fail(f"{behaviour.__name__} was cut off: {error}")
