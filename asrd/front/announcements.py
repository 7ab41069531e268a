"""The wait for what workers report about their models: right after the daemon's start nothing is
known, and a client may ask only once."""

import math

import anyio

from asrd.front.scheduling.workers import Skills, Workers
from asrd.front.worker_connection import WorkerConnection
from asrd.wire.worker_events import Hello, Loading

# Seconds within which a worker's process reports what its model can do, also on a slow and busy
# machine. Shorter than the library waits for an answer (10 s).
_PATIENCE = 5.0


class Announcements:
    """`workers` and `connections` are the front's, by the same names."""

    def __init__(self, workers: Workers, connections: dict[str, WorkerConnection]) -> None:
        self._workers, self._connections = workers, connections
        self._changed = anyio.Event()

    def note(self) -> None:
        """A worker has reported something."""
        self._changed.set()
        self._changed = anyio.Event()

    async def wait(self) -> None:
        """Waits until each worker that may serve has reported what its model can do, or was silent
        for too long."""
        while (until := self._unknown_until()) > anyio.current_time():
            with anyio.CancelScope(deadline=until):
                await self._changed.wait()

    def _unknown_until(self) -> float:
        waits = [-math.inf]
        for worker in self._workers.values():
            info = self._connections[worker.name].info
            known = info.languages or worker.skills.speakers
            if worker.hopeful and not known and info.found_at is not None:
                waits.append(info.found_at + _PATIENCE)
        return max(waits)


def skills_of(event: Loading | Hello) -> Skills | None:
    """Returns the model's skills; None before the worker has looked at its files."""
    if not event.languages and not event.speakers:
        return None
    languages = frozenset(event.languages)
    words = event.word_timestamps
    return Skills(languages, event.translate, words, event.speech, event.speakers)
