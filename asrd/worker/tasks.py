"""The job that the front gave to this worker."""

import time

from asrd.errors import ProtocolError
from asrd.worker.inference import Inference, Task


class Tasks:
    def __init__(self, inference: Inference) -> None:
        self.running: Task | None = None
        # The one that runs, until somebody runs it.
        self.due: Task | None = None
        self._inference = inference

    def take(self, task: Task) -> None:
        """Run it. Takes the task over.

        Raises ProtocolError if another one runs.
        """
        if self.running is not None:
            self._inference.discard(task)
            raise ProtocolError("a job came while there is no place for it")
        task.moved_at = time.monotonic()
        self.running = self.due = task

    def cancel(self, key: int) -> None:
        """Stop the one that runs at its next sign of life."""
        if self.running is not None and self.running.job.key == key:
            self.cancel_all()

    def cancel_all(self) -> None:
        if self.running is not None and self.running.cancelled_at is None:
            self.running.cancelled_at = time.monotonic()

    def take_due(self) -> Task | None:
        task, self.due = self.due, None
        return task

    def answered(self) -> None:
        """The one that ran has ended."""
        self.running = None

    def stuck(self, grace: float, now: float) -> Task | None:
        """The task that was cancelled more than `grace` seconds ago and goes on."""
        task = self.running
        if task is None or task.cancelled_at is None or now - task.cancelled_at <= grace:
            return None
        return task
