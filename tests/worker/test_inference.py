"""The engine's threads, with an engine whose every step the test decides."""

import os
import select
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from asrd.errors import BadAudio, Code, Poisoned
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat, Checkpoint
from asrd.wire.worker_events import Done, Failed, Hello, JobProgress, JobWindow, StartJob
from asrd.worker.inference import Announce, Inference, LoadFailed, Message, Panic
from asrd.worker.tasks import Task
from tests.support.fake_engine import AUDIO_SECONDS, EndableInference, FakeEngine, length
from tests.support.raw import PATIENCE, memfd, wait_for


def task(text: str = "a", key: int = 1, size: int | None = None, **fields: Any) -> Task:
    job = StartJob(key, "a", AudioFormat("file"), Options(), size or len(text), **fields)
    return Task(job, memfd(text.encode()))


@contextmanager
def started(load: Callable[[Announce], FakeEngine]) -> Iterator[Inference]:
    inference = EndableInference()
    inference.start(load)
    try:
        yield inference
    finally:
        inference.end()


@contextmanager
def loaded(engine: FakeEngine) -> Iterator[Inference]:
    with started(lambda announce: engine) as inference:
        (hello,) = messages(inference)
        assert isinstance(hello, Hello) and hello.model == "fake"
        yield inference


def messages(inference: Inference) -> list[Message]:
    assert select.select([inference], [], [], PATIENCE)[0]
    return list(inference.take_messages())


def all_until(inference: Inference, ends: int = 1) -> list[Message]:
    """All messages until so many jobs have ended."""
    found: list[Message] = []
    while sum(isinstance(each, Done | Failed | Panic) for each in found) < ends:
        found += messages(inference)
    return found


def answer(inference: Inference) -> Message:
    """The last message of a job."""
    return all_until(inference)[-1]


@contextmanager
def several(inference: Inference, engine: FakeEngine, gate: str, *tasks: Task) -> Iterator[None]:
    """Jobs of which all but the first wait for their first turn; `gate` is in the first one's."""
    joined = inference.turns._tasks
    for count, each in enumerate(tasks, 1):
        inference.submit(each)
        wait_for("the job", lambda count=count: len(joined) == count and gate in engine.steps)
    yield
    engine.gates[gate].set()


def test_two_jobs_take_turns_and_have_their_own_texts() -> None:
    engine = FakeEngine("prepare a|b|c")
    with loaded(engine) as inference:
        with several(inference, engine, "prepare a|b|c", task("a|b|c", 1), task("x|y|z", 2)):
            pass
        found = all_until(inference, 2)
    steps = ["prepare a|b|c", "prepare x|y|z", "run a", "run x", "run b", "run y", "run c", "run z"]
    assert sorted(engine.steps) == sorted(steps)
    # The last window of each is short.
    assert engine.steps[:4] == steps[:4]
    texts = dict.fromkeys((1, 2), "")
    for each in found:
        if isinstance(each, Done | JobWindow):
            texts[each.key] += each.text
    assert texts == {1: "abc", 2: "xyz"}


def test_short_job_waits_for_one_turn_of_a_long_one() -> None:
    engine = FakeEngine("run a")
    with loaded(engine) as inference:
        with several(inference, engine, "run a", task("a|b|c", 1), task("x", 2)):
            pass
        ends = [each.key for each in all_until(inference, 2) if isinstance(each, Done)]
    assert ends == [2, 1]
    assert engine.steps == ["prepare a|b|c", "run a", "prepare x", "run x", "run b", "run c"]


def test_suspect_runs_alone_to_its_next_checkpoint() -> None:
    engine = FakeEngine("run x")
    suspect = task("a|b|c", 2, suspect=True)
    with loaded(engine) as inference:
        with several(inference, engine, "run x", task("x|y|z", 1), suspect, task("k", 3)):
            pass
        all_until(inference, 3)
    assert engine.steps[2:6] == ["prepare a|b|c", "run a", "run b", "prepare k"]


def test_window_carries_its_segments_once() -> None:
    with loaded(FakeEngine()) as inference:
        inference.submit(task("a|b|c", key=7))
        first, second, done = all_until(inference)
    assert isinstance(first, JobWindow) and isinstance(second, JobWindow)
    assert isinstance(done, Done)
    assert [first.text, second.text, done.text] == ["a", "b", "c"]
    assert [len(each.segments) for each in (first, second, done)] == [1, 1, 1]
    assert second.checkpoint == Checkpoint(6000, 60.0, 2)
    assert done.audio_seconds == length("a|b|c")


def test_engine_goes_on_only_when_what_is_done_has_been_sent() -> None:
    """Its next call may end the process."""
    engine, one = FakeEngine(), task("a|b")
    with loaded(engine) as inference:
        inference.submit(one)
        for step, kind in ("run a", JobWindow), ("run b", Done):
            assert select.select([inference], [], [], PATIENCE)[0]
            wait_for("it to wait", lambda: innermost(one.thread) == "wait")
            assert engine.steps[-1] == step
            (message,) = inference.take_messages()
            assert isinstance(message, kind)


def innermost(thread: int) -> str:
    """The function that a thread is in."""
    return sys._current_frames()[thread].f_code.co_name


def test_resumed_job_goes_on_from_its_checkpoint() -> None:
    engine = FakeEngine()
    with loaded(engine) as inference:
        inference.submit(task("a|b|c", resume=Checkpoint(3000, 30.0, 1)))
        found = all_until(inference)
    assert engine.steps == ["prepare a|b|c", "run b", "run c"]
    assert [each.text for each in found if isinstance(each, JobWindow | Done)] == ["b", "c"]


def test_suspended_job_ends_at_its_checkpoint_and_a_short_one_has_its_answer() -> None:
    engine = FakeEngine("run a")
    tasks = task("a|b|c", 1), task("x", 2), task("m|n|o", 3, size=8 << 20)
    with loaded(engine) as inference:
        with several(inference, engine, "run a", *tasks):
            for each in tasks:
                each.suspend()
        found = all_until(inference, 3)
        # Their places are free.
        inference.submit(task("k", 4))
        assert isinstance(answer(inference), Done)
    kinds: dict[int, list[type]] = {1: [], 2: [], 3: []}
    for message in found:
        assert isinstance(message, JobWindow | Failed | Done)
        if isinstance(message, Failed):
            assert message.code == Code.SHUTTING_DOWN
        kinds[message.key].append(type(message))
    assert kinds == {1: [JobWindow, Failed], 2: [Done], 3: [Failed]}
    assert engine.steps == ["prepare a|b|c", "run a", "prepare x", "run x", "prepare k", "run k"]


def test_job_that_is_cancelled_before_its_first_turn_is_never_opened() -> None:
    engine = FakeEngine("run a")
    second, third = task("x", 2), task("y", 3)
    with loaded(engine) as inference:
        with several(inference, engine, "run a", task("a|b"), second, third):
            third.cancel()
        first = all_until(inference, 3)[0]
    assert isinstance(first, Failed) and (first.key, first.code) == (3, Code.CANCELLED)
    assert "prepare y" not in engine.steps


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Poisoned("CUDA failed")])
def test_broken_engine_keeps_the_turn(error: BaseException) -> None:
    """No other job meets it, or is blamed for it."""
    engine = FakeEngine("run a", failures={"run a": error})
    with loaded(engine) as inference:
        with several(inference, engine, "run a", task("a|b", 7), task("x", 8)):
            pass
        end = answer(inference)
        assert isinstance(end, Panic) or (isinstance(end, Failed) and end.fatal)
        assert inference.turn_word.read() == 7
        assert engine.steps == ["prepare a|b", "run a"]


@pytest.mark.parametrize("end", ["done", "cancelled", "suspended", "failed"])
def test_job_is_closed_and_its_memory_free_once_it_has_ended(end: str) -> None:
    failures: dict[str, BaseException] = {"run b": BadAudio("bad")} if end == "failed" else {}
    engine = FakeEngine("run a", failures=failures)
    with loaded(engine) as inference:
        one = task("a|b|c", key=7)
        inference.submit(one)
        wait_for("the job", lambda: "run a" in engine.steps)
        if end == "cancelled":
            one.cancel()
        if end == "suspended":
            one.suspend()
        engine.gates["run a"].set()
        assert isinstance(answer(inference), Done if end == "done" else Failed)
        prepared = engine.prepared.pop()
        with pytest.raises(ValueError, match="closed"):
            one.fd.fileno()
        assert prepared.closed
        references = weakref.ref(prepared), weakref.ref(one)
        # The error's traceback would hold both.
        failures.clear()
        del prepared, one
        wait_for("it to be freed", lambda: not any(each() for each in references))
        assert (inference.turn_word.read(), inference.turns.current) == (0, None)


def test_turn_word_names_the_job_that_runs() -> None:
    engine = FakeEngine("run a")
    with loaded(engine) as inference:
        with several(inference, engine, "run a", task("a", 7), task("x", 8)):
            assert inference.turn_word.read() == 7
        all_until(inference, 2)


@pytest.mark.parametrize("stream", [True, False])
def test_only_a_streamed_job_reports_while_it_runs_and_each_place_once(stream: bool) -> None:
    class Steps(FakeEngine):
        def run(self, prepared: Any, on_progress: Any, *others: Any) -> Any:
            on_progress(0.0, AUDIO_SECONDS)
            on_progress(0.0, AUDIO_SECONDS)
            return super().run(prepared, on_progress, *others)

    with loaded(Steps()) as inference:
        inference.submit(task(stream=stream))
        reports = all_until(inference)[:-1]
    # Nothing is reported while it is prepared.
    expected = [JobProgress(1, done, AUDIO_SECONDS) for done in (0.0, AUDIO_SECONDS)]
    assert reports == (expected if stream else [])


@pytest.mark.parametrize("step", ["prepare a", "run a"])
def test_cancelled_job_stops_at_its_next_progress(step: str) -> None:
    engine = FakeEngine(step)
    with loaded(engine) as inference:
        one = task()
        inference.submit(one)
        wait_for("the job", lambda: step in engine.steps)
        one.cancel()
        engine.gates[step].set()
        failed = answer(inference)
    assert isinstance(failed, Failed) and failed.code == Code.CANCELLED


@pytest.mark.parametrize("step", ["prepare a", "run a"])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadAudio("audio: bad"), Code.BAD_AUDIO),
        (MemoryError(), Code.OUT_OF_MEMORY),
        (ValueError("a bug"), Code.INTERNAL),
    ],
)
def test_failed_job_has_one_answer_and_the_next_one_runs(
    step: str, error: Exception, code: Code
) -> None:
    with loaded(FakeEngine(failures={step: error})) as inference:
        inference.submit(task("a"))
        failed = answer(inference)
        inference.submit(task("b"))
        done = answer(inference)
    assert isinstance(failed, Failed) and (failed.code, failed.fatal) == (code, False)
    assert isinstance(done, Done) and done.text == "b"


def test_audio_that_was_cut_short_is_bad_audio() -> None:
    engine = FakeEngine("run aa")
    with loaded(engine) as inference:
        one = task("aa")
        inference.submit(one)
        wait_for("the job", lambda: "run aa" in engine.steps)
        os.ftruncate(one.fd.fileno(), 1)
        engine.gates["run aa"].set()
        failed = answer(inference)
    assert isinstance(failed, Failed) and failed.code == Code.BAD_AUDIO
    assert "truncated" in failed.text


@pytest.mark.parametrize(
    ("error", "permanent", "words"),
    [
        (ImportError("No module named 'av'"), True, "pip install 'asrd[worker]'"),
        (ValueError("a bug"), False, "ValueError: a bug"),
    ],
)
def test_load_that_fails_is_reported(error: Exception, permanent: bool, words: str) -> None:
    def load(announce: Announce) -> FakeEngine:
        raise error

    with started(load) as inference:
        (failed,) = messages(inference)
    assert isinstance(failed, LoadFailed) and failed.permanent is permanent
    assert words in failed.reason
