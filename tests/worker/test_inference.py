"""The engine's thread, with an engine whose every step the test decides."""

import os
import select
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from asrd.errors import BadAudio, Code, Poisoned
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat
from asrd.wire.worker_events import Done, Failed, Hello, JobProgress, JobSegment, StartJob
from asrd.worker.inference import Announce, Inference, LoadFailed, Message, Task
from tests.support.fake_engine import AUDIO_SECONDS, EndableInference, FakeEngine
from tests.support.raw import PATIENCE, memfd, wait_for


def task(text: str = "a", key: int = 1, **fields: Any) -> Task:
    job = StartJob(key, "a", AudioFormat("file"), Options(), len(text), **fields)
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
    return inference.take_messages()


def answer(inference: Inference) -> Message:
    """The last message of a job."""
    while not isinstance(last := messages(inference)[-1], Done | Failed):
        pass
    return last


def test_job_is_closed_and_its_memory_free_once_it_is_answered() -> None:
    engine = FakeEngine()
    with loaded(engine) as inference:
        one = task(key=7)
        inference.submit(one)
        done = answer(inference)
        assert isinstance(done, Done) and (done.key, done.text) == (7, "a")
        assert engine.steps == ["prepare a", "run a"]
        prepared = engine.prepared.pop()
        with pytest.raises(ValueError, match="closed"):
            one.fd.fileno()
        assert prepared.closed
        reference = weakref.ref(prepared)
        del prepared
        wait_for("it to be freed", lambda: reference() is None)


@pytest.mark.parametrize("stream", [True, False])
def test_only_a_streamed_job_reports_while_it_runs(stream: bool) -> None:
    with loaded(FakeEngine()) as inference:
        inference.submit(task(stream=stream))
        found: list[Message] = []
        while not found or not isinstance(found[-1], Done):
            found += messages(inference)
    # Nothing is reported while it is prepared.
    reports = found[:-1]
    assert [type(report) for report in reports] == ([JobProgress, JobSegment] if stream else [])
    if stream:
        assert reports[0] == JobProgress(1, AUDIO_SECONDS, AUDIO_SECONDS)


@pytest.mark.parametrize("step", ["prepare a", "run a"])
def test_cancelled_job_stops_at_its_next_progress(step: str) -> None:
    engine = FakeEngine(step)
    with loaded(engine) as inference:
        one = task()
        inference.submit(one)
        wait_for("the job", lambda: step in engine.steps)
        one.cancel()
        first = one.cancelled_at
        one.cancel()
        assert one.cancelled_at == first
        engine.gates[step].set()
        failed = answer(inference)
    assert isinstance(failed, Failed) and failed.code == Code.CANCELLED


@pytest.mark.parametrize("step", ["prepare a", "run a"])
@pytest.mark.parametrize(
    ("error", "code", "fatal"),
    [
        (BadAudio("audio: bad"), Code.BAD_AUDIO, False),
        (MemoryError(), Code.OUT_OF_MEMORY, False),
        (ValueError("a bug"), Code.INTERNAL, False),
        (Poisoned("CUDA failed"), Code.INTERNAL, True),
    ],
)
def test_failed_job_has_one_answer_and_the_next_one_runs(
    step: str, error: Exception, code: Code, fatal: bool
) -> None:
    with loaded(FakeEngine(failures={step: error})) as inference:
        inference.submit(task("a"))
        failed = answer(inference)
        inference.submit(task("b"))
        done = answer(inference)
    assert isinstance(failed, Failed) and (failed.code, failed.fatal) == (code, fatal)
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
