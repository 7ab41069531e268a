"""A job on its way through the engine. Its thread works on it; the main thread may end it."""

import time

from asrd.wire.fds import OwnedFd
from asrd.wire.records import WINDOW_SECONDS, Segment, is_long
from asrd.wire.worker_events import JobState, StartJob

# When the worker stops, a long job goes on to its next checkpoint, a short one to its end. After so
# many seconds both end where they are, and another worker goes on from the last checkpoint.
_LONG_PATIENCE, _SHORT_PATIENCE = 10.0, 120.0
# A job with at most one window left is quick until it has had turns for so long.
_QUICK_SECONDS = 5.0
# sherpa-onnx reports nothing while it looks for speech in the whole recording, which takes 3 % of
# its length on a core, more on a busy one. A job of the task `speakers` may be silent for so much.
_SILENT_SHARE = 0.2
# It can't be stopped, either, and its models load in a second: once it is cancelled, it is worth no
# longer wait.
_SEARCH_GRACE = 0.5


class Cancelled(Exception):
    """Raised at the end of a turn of a job that the front cancelled."""


class Suspended(Exception):
    """Raised in a job that another worker is to go on with."""


class Task:
    """Owns the descriptor of the job's audio.

    `segments` are those that the front does not have yet. `suspect`: a worker died in this job's
    turn, and it has not passed that place yet. The main thread sets `cancelled_at` and
    `suspended_at`, in monotonic seconds, and may ask for times and the state at any time; all else
    belongs to `thread`, which has the job.
    """

    def __init__(self, job: StartJob, fd: OwnedFd) -> None:
        self.job = job
        self.fd = fd
        self.segments: list[Segment] = []
        self.suspect = job.suspect
        self.thread = 0
        self.cancelled_at: float | None = None
        self.suspended_at: float | None = None
        # In seconds of audio.
        self.done = self._begins_at = 0.0 if job.resume is None else job.resume.seconds
        self.total = job.audio.seconds(job.size)
        # The seconds of all turns that have ended, and the start of the one that has not. In one
        # object, so that the main thread never sees half a change.
        self._work: tuple[float, float | None] = (0.0, None)

    @property
    def long(self) -> bool:
        return is_long(self.total, self.done, self.job.size)

    @property
    def quick(self) -> bool:
        return not self.long and self._work[0] < _QUICK_SECONDS

    @property
    def silent_seconds(self) -> float:
        """Returns how long the engine may take without a report because of what it does."""
        return _SILENT_SHARE * (self.total or 0.0) if self._speakers else 0.0

    def grace(self, usual: float) -> float:
        """Returns how long it may go on after it was cancelled, if `usual` is another job's."""
        return min(usual, _SEARCH_GRACE) if self._speakers else usual

    @property
    def _speakers(self) -> bool:
        return self.job.options.task == "speakers"

    def cancel(self) -> None:
        """Ends the job after its turn."""
        self.cancelled_at = self.cancelled_at or time.monotonic()

    def suspend(self) -> None:
        """Ends a long job at its next checkpoint, or soon."""
        self.suspended_at = self.suspended_at or time.monotonic()

    def check(self, at_checkpoint: bool = False) -> None:
        """Raises Cancelled, Suspended."""
        if self.cancelled_at is not None:
            raise Cancelled
        patience = 0.0 if at_checkpoint and self.long else self._patience
        if self.suspended_at is not None and time.monotonic() - self.suspended_at >= patience:
            raise Suspended

    @property
    def _patience(self) -> float:
        return _LONG_PATIENCE if self.long else _SHORT_PATIENCE

    def ignores_suspension(self, now: float) -> bool:
        """Returns True for a job that should have ended, and can't: sherpa-onnx can't be
        stopped."""
        suspended = self.suspended_at
        return self._speakers and suspended is not None and now - suspended >= self._patience

    def pass_checkpoint(self) -> None:
        """The front has all segments so far. Raises Cancelled, Suspended."""
        self.segments.clear()
        self.suspect = False
        self.check(at_checkpoint=True)

    def begin_turn(self) -> None:
        self._work = self._work[0], time.monotonic()

    def end_turn(self) -> None:
        self._work = self._work[0] + self.turn_seconds(time.monotonic()), None
        # Without checkpoints (split_channels), nobody knows where the worker died: the other jobs
        # do not wait for the whole recording.
        if self.done > self._begins_at + WINDOW_SECONDS:
            self.suspect = False

    def turn_seconds(self, now: float) -> float:
        """Returns the length of its turn so far, 0 if it has none."""
        began = self._work[1]
        return 0.0 if began is None else max(0.0, now - began)

    def overrun(self, now: float) -> float:
        """Returns the length of its turn since it was cancelled, 0 if it was not."""
        if self.cancelled_at is None:
            return 0.0
        return min(now - self.cancelled_at, self.turn_seconds(now))

    def state(self, now: float) -> JobState:
        ended, began = self._work
        work = ended if began is None else ended + max(0.0, now - began)
        return JobState(self.job.key, round(work, 3), round(self.done, 3), self.total)
