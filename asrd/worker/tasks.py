"""The jobs that the front gave to this worker: one that runs, and one that is held beside it."""

import time
from typing import NoReturn

from asrd.errors import ProtocolError
from asrd.wire.worker_events import RunJob
from asrd.worker.inference import Inference, Task


class Tasks:
    """`can_hold`: whether it said so in its `hello`."""

    def __init__(self, inference: Inference, can_hold: bool) -> None:
        self.running: Task | None = None
        # The one that runs, until somebody runs it.
        self.due: Task | None = None
        self._held: Task | None = None
        # What was held until the front changed its mind, as long as it is still read.
        self._discarded: list[Task] = []
        self._inference = inference
        self._can_hold = can_hold

    def take(self, task: Task) -> None:
        """Run it, or hold it if its job says so. Takes the task over.

        Raises ProtocolError if there is no place for it.
        """
        if task.job.hold:
            self._hold(task)
        else:
            self._begin(task, task.job.alone)

    def run_held(self, event: RunJob) -> None:
        """Raises ProtocolError if it is not held, or another one runs."""
        task = self._held
        if task is None or task.job.key != event.key:
            raise ProtocolError(f"job {event.key} is not held")
        self._held = None
        self._begin(task, event.alone)

    def cancel(self, key: int) -> None:
        """Stop the one that runs at its next sign of life, or forget the one that is held."""
        if self.running is not None and self.running.job.key == key:
            self._stop()
        elif self._held is not None and self._held.job.key == key:
            self._discard()

    def cancel_all(self) -> None:
        self._stop()
        self._discard()

    def take_due(self) -> Task | None:
        task, self.due = self.due, None
        return task

    def answered(self) -> None:
        """The one that ran has ended."""
        self.running = None

    def stuck(self, grace: float, now: float) -> Task | None:
        """A task that was cancelled more than `grace` seconds ago and goes on. One that is only
        read costs nobody anything but a thread, unless nothing runs, or what shall run waits for
        that to end, since it must be alone."""
        self._discarded = [task for task in self._discarded if not task.closed]
        going_on = [] if self.running is None else [self.running]
        if self.running is None or self.running.alone:
            going_on += self._discarded
        for task in going_on:
            if task.cancelled_at is not None and now - task.cancelled_at > grace:
                return task
        return None

    def _begin(self, task: Task, alone: bool) -> None:
        if self.running is not None:
            self._refuse(task)
        task.alone, task.moved_at = alone, time.monotonic()
        self.running = self.due = task

    def _hold(self, task: Task) -> None:
        if self._held is not None or not self._can_hold:
            self._refuse(task)
        self._held = task
        self._inference.prepare(task)

    def _refuse(self, task: Task) -> NoReturn:
        self._inference.discard(task)
        raise ProtocolError("a job came while there is no place for it")

    def _stop(self) -> None:
        if self.running is not None and self.running.cancelled_at is None:
            self.running.cancelled_at = time.monotonic()

    def _discard(self) -> None:
        if self._held is not None:
            self._held.cancelled_at = time.monotonic()
            self._inference.discard(self._held)
            self._discarded.append(self._held)
            self._held = None
