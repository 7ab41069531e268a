"""Whose turn it is: the rules alone, turns that are taken by hand, and those of threads."""

import math
import threading
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from asrd.wire.fds import OwnedFd
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat
from asrd.wire.worker_events import StartJob
from asrd.worker.tasks import Task
from asrd.worker.turns import _QUICK_TURNS, Turns, choose, innermost_calls
from tests.support.raw import PATIENCE

SHORT, LONG = 5.0, 600.0


def made(key: int, seconds: float = SHORT, suspect: bool = False) -> Task:
    job = StartJob(
        key, "a", AudioFormat("pcm_s16le"), Options(), int(32_000 * seconds), suspect=suspect
    )
    return Task(job, OwnedFd(-1))


def chosen(*tasks: Task, quick_turns: int = 0) -> int:
    return choose(tasks, quick_turns).job.key


def test_short_job_passes_long_ones_and_the_oldest_comes_first() -> None:
    assert chosen(made(1, LONG), made(2), made(3)) == 2
    assert chosen(made(1, LONG), made(2, LONG)) == 1


def test_long_job_in_its_last_window_is_short() -> None:
    ending = made(2, LONG)
    ending.done = LONG - 30.0
    assert chosen(made(1, LONG), ending) == 2


def test_slow_window_does_not_hold_up_a_command() -> None:
    noise = made(1)
    noise._work = 6.0, None
    assert chosen(noise, made(2, LONG)) == 1
    assert chosen(noise, made(2)) == 2


def test_long_job_has_a_turn_after_so_many_of_short_ones() -> None:
    both = made(1), made(2, LONG)
    assert chosen(*both, quick_turns=_QUICK_TURNS - 1) == 1
    assert chosen(*both, quick_turns=_QUICK_TURNS) == 2
    # If there is one.
    assert chosen(made(1), made(2), quick_turns=_QUICK_TURNS) == 1


def test_suspect_comes_before_all_others() -> None:
    assert chosen(made(1), made(2, LONG, suspect=True), quick_turns=1) == 2
    assert chosen(made(1, LONG), made(2, suspect=True), quick_turns=_QUICK_TURNS) == 2


def test_cancelled_job_comes_first_to_end() -> None:
    cancelled = made(3, LONG)
    cancelled.cancel()
    assert chosen(made(1), made(2, suspect=True), cancelled) == 3


class ByHand(Turns):
    """Turns that a test takes without threads; `key` is the turn word."""

    def __init__(self) -> None:
        self.key = 0
        super().__init__(self._set)

    def _set(self, key: int) -> None:
        self.key = key

    def _wait(self, task: Task) -> None:
        pass


def test_turn_word_names_the_job_in_turn() -> None:
    turns, keys = ByHand(), []
    one, two, command = made(1, LONG), made(2, LONG), made(3)
    turns.join(one)
    turns.join(two)
    for step in turns.next, turns.next, turns.next:
        keys.append(turns.key)
        assert turns.current is not None
        step(turns.current)
    assert keys == [1, 2, 1]
    turns.join(command)
    turns.next(two)
    assert turns.key == 3
    for task in command, one, two:
        turns.leave(task)
    assert (turns.key, turns.current) == (0, None)


def test_long_job_has_one_turn_in_so_many_of_short_ones() -> None:
    turns, keys = ByHand(), []
    for task in made(1), made(2, LONG):
        turns.join(task)
    for _ in range(2 * (_QUICK_TURNS + 1)):
        assert turns.current is not None
        keys.append(turns.key)
        turns.next(turns.current)
    assert keys == 2 * [*_QUICK_TURNS * [1], 2]


def test_suspect_without_checkpoints_shares_after_a_window() -> None:
    turns, keys = ByHand(), []
    suspect = made(1, LONG, suspect=True)
    for task in suspect, made(2):
        turns.join(task)
    for seconds in (0, 30, 31):
        keys.append(turns.key)
        suspect.done = seconds
        turns.next(suspect)
    assert [*keys, turns.key] == [1, 1, 1, 2]


STEPS = st.sampled_from(["short", "long", "suspect", "turn", "turn", "turn", "end", "cancel"])


@given(st.lists(STEPS, max_size=200), st.randoms(use_true_random=False))
def test_nothing_starves(steps: list[str], random: object) -> None:
    """A short job waits for older ones and cancelled ones alone, a long one for a bounded number of
    turns, and the turn word always names the job in turn."""
    turns, tasks, waited = ByHand(), list[Task](), Counter[int]()
    for key, step in enumerate(steps, 1):
        current = turns.current
        if step in ("short", "long", "suspect"):
            tasks.append(made(key, SHORT if step == "short" else LONG, step == "suspect"))
            turns.join(tasks[-1])
        elif current is None:
            continue
        elif step == "turn":
            turns.next(current)
            waited.update(task.job.key for task in tasks)
        elif step == "cancel":
            tasks[len(tasks) // 2].cancel()
        else:
            tasks.remove(current)
            turns.leave(current)
        _check(turns, tasks, waited)


def _check(turns: ByHand, tasks: list[Task], waited: Counter[int]) -> None:
    current = turns.current
    if current is None:
        assert (tasks, turns.key) == ([], 0)
        return
    assert turns.key == current.job.key
    # Only its time counts.
    assert [task for task in tasks if task.turn_seconds(math.inf)] == [current]
    del waited[current.job.key]
    if any(task.suspect or task.cancelled_at for task in tasks):
        # They end soon, or their process does.
        waited.clear()
    long = [task for task in tasks if task.long]
    for task in long:
        assert waited[task.job.key] <= (_QUICK_TURNS + 1) * len(long)


class Waiting(Turns):
    """`waits` counts the threads that have begun to wait."""

    def __init__(self) -> None:
        super().__init__(lambda key: None)
        self.waits = threading.Semaphore(0)

    def _wait(self, task: Task) -> None:
        self.waits.release()
        super()._wait(task)


def test_one_thread_runs_at_a_time() -> None:
    turns, order = Waiting(), []

    def work(task: Task) -> None:
        turns.join(task)
        for _ in range(2):
            order.append(task.job.key)
            turns.next(task)
        order.append(task.job.key)
        turns.leave(task)

    first = made(1, LONG)
    turns.join(first)
    assert turns.waits.acquire(timeout=PATIENCE)
    tasks = [made(2), made(3, LONG), made(4, LONG)]
    threads = [threading.Thread(target=work, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
        assert turns.waits.acquire(timeout=PATIENCE)
    assert order == []
    turns.next(first)
    order.append(1)
    turns.leave(first)
    for thread in threads:
        thread.join(PATIENCE)
    # The short one first; then the long ones take turns, and the first one had one before.
    assert order == [2, 2, 2, 3, 4, 1, 3, 4, 3, 4]
    assert turns.current is None


def test_log_names_the_calls_of_a_hung_thread() -> None:
    begun, end = threading.Event(), threading.Event()

    def hangs() -> None:
        begun.set()
        end.wait(PATIENCE)

    thread = threading.Thread(target=hangs)
    thread.start()
    assert begun.wait(PATIENCE) and thread.ident is not None
    assert f"test_turns.py:{hangs.__code__.co_firstlineno + 2} hangs" in innermost_calls(
        thread.ident
    )
    end.set()
    thread.join()
