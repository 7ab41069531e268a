"""Turns: the jobs of a worker share its model, and one of them runs at a time.

A turn lasts from one report of progress to the next: one call of the model, or one block of audio.
So a short command passes a recording of hours after one call. Each job has a thread, which keeps
the state of the job between its turns for free; only the thread whose job has the turn runs.
"""

import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from asrd.worker.tasks import Task

# The turns of quick jobs after which another one has one: about three commands.
_QUICK_TURNS = 24
# The calls of a hung thread that the log names.
_CALLS = 5


def choose(tasks: Sequence[Task], quick_turns: int) -> Task:
    """Returns the job that has the next turn.

    `tasks` are not empty, and in the order of arrival, except that each one that is not quick moves
    to the end with each turn; `quick_turns` of quick jobs went by since the last turn of another.

    1. A cancelled job comes first: its turn is its end.
    2. A job in whose turn a worker died comes next, until it has passed that place, or a window. If
       it kills this worker, too, the other jobs have not waited in vain for long.
    3. Quick jobs come before the others, the oldest first: those with at most one window left that
       had no more than a few seconds. But after `_QUICK_TURNS` of them another has a turn, so that
       none starves.
    4. The others take turns: long jobs, and those whose window is slow, as noise is.
    """
    for task in tasks:
        if task.cancelled_at is not None:
            return task
    for task in tasks:
        if task.suspect:
            return task
    quick_first = quick_turns < _QUICK_TURNS
    return next((task for task in tasks if task.quick == quick_first), tasks[0])


class Turns:
    """Gives the turn to one thread after another; the others wait in `join` or `next`.

    `current` is the job that has the turn. `tell(key)` is called with its key before it begins, and
    with 0 when no job is left.
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        self.current: Task | None = None
        self._tell = tell
        self._changed = threading.Condition()
        self._tasks: list[Task] = []
        self._quick_turns = 0

    def join(self, task: Task) -> None:
        """Waits for the job's first turn."""
        with self._changed:
            self._tasks.append(task)
            if self.current is None:
                self._begin()
            self._wait(task)

    def next(self, task: Task) -> None:
        """Ends the job's turn, and waits for its next one."""
        with self._changed:
            self._end(task)
            self._begin()
            self._wait(task)

    def leave(self, task: Task) -> None:
        """Ends the job's last turn."""
        with self._changed:
            self._end(task)
            self._tasks.remove(task)
            self._begin()

    def _wait(self, task: Task) -> None:
        while self.current is not task:
            self._changed.wait()

    def _end(self, task: Task) -> None:
        task.end_turn()
        self._quick_turns += 1
        if not task.quick:
            self._quick_turns = 0
            self._tasks.remove(task)
            self._tasks.append(task)

    def _begin(self) -> None:
        before = self.current
        self.current = choose(self._tasks, self._quick_turns) if self._tasks else None
        if self.current is not before:
            self._tell(0 if self.current is None else self.current.job.key)
            self._changed.notify_all()
        if self.current is not None:
            self.current.begin_turn()


def innermost_calls(thread: int) -> str:
    """Returns the last calls of a thread, the innermost last, for the log."""
    calls = traceback.extract_stack(sys._current_frames().get(thread))[-_CALLS:]
    return ", ".join(f"{Path(c.filename).name}:{c.lineno} {c.name}" for c in calls)
