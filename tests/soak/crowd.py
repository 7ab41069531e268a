"""The clients: threads that do one thing after another, each at random from a seed of its own."""

import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tests.soak.honest import Context
from tests.soak.users import become

Behaviour = Callable[[Context], None]

_REST_SECONDS = 1.5
# Whatever a client does ends within its own time limits; this is for one that hangs.
_LAST_SECONDS = 150.0


class Crowd:
    """`behaviours` by weight; those in `withheld` are not done, from when they are put there."""

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
        """Once `stop` is set."""
        until = time.monotonic() + _LAST_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                self._contexts[0].ledger.fail(f"{thread.name} hangs")

    def _live(self, context: Context, stop: threading.Event) -> None:
        if context.uid is not None:
            become(context.uid)
        while not stop.wait(context.chance.uniform(0, _REST_SECONDS)):
            behaviour = context.chance.choices(self._behaviours, self._weights)[0]
            if behaviour in self.withheld:
                continue
            context.ledger.trick(behaviour.__name__.strip("_"))
            try:
                behaviour(context)
            except (BrokenPipeError, ConnectionResetError) as error:
                self._cut_off(context, behaviour, error)
            except Exception:
                context.ledger.fail(f"{behaviour.__name__} failed:\n{traceback.format_exc()}")

    def _cut_off(self, context: Context, behaviour: Behaviour, error: OSError) -> None:
        if not context.ledger.striking("front"):
            context.ledger.fail(f"{behaviour.__name__} was cut off: {error}")


@contextmanager
def in_background(run: Callable[[threading.Event], None]) -> Iterator[None]:
    """In a thread, until the block ends."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
