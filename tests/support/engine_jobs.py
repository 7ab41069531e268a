"""Jobs of an engine in this process, as the worker runs them."""

import copy
import dataclasses
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from asrd.engine.audio.reader import Samples
from asrd.engine.interface import Engine, Transcription
from asrd.engine.whisper import WhisperEngine
from asrd.settings import WorkerSettings
from asrd.wire.fields import dump, parse
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat, Checkpoint, Segment
from tests.support.sounds import memory_file

S16, F32, FILE = AudioFormat("pcm_s16le"), AudioFormat("pcm_f32le"), AudioFormat("file")
SETTINGS = WorkerSettings(model="demo", device="cpu", cpu_threads=1, beam_size=2)
ENGLISH = Options(language="en")
# One temperature: the others are sampled at random.
GREEDY = Options(language="en", beam_size=1, temperature=0.0)


class Listener:
    """The callbacks of a job. Raises `error` after so many calls as `at` says:
    `Listener(error, progress=3)`, `Listener(error, segments=1)`."""

    def __init__(self, error: BaseException | None = None, **at: int) -> None:
        self.progress: list[tuple[float, float | None]] = []
        self.segments: list[Segment] = []
        self.checkpoints: list[Checkpoint] = []
        self.error = error
        self._at = at

    def on_progress(self, done: float, total: float | None) -> None:
        self.progress.append((done, total))
        self._raise("progress")

    def on_segment(self, segment: Segment) -> None:
        self.segments.append(segment)
        self._raise("segments")

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        self.checkpoints.append(checkpoint)
        self._raise("checkpoints")

    def _raise(self, kind: str) -> None:
        if self.error is not None and len(getattr(self, kind)) == self._at.get(kind):
            raise self.error


def prepare(
    engine: Engine[Any],
    fd: int,
    audio: AudioFormat,
    options: Options = GREEDY,
    listener: Listener | None = None,
    limit: float = 3600.0,
    resume: Checkpoint | None = None,
) -> Any:
    """A prepared job, which must be closed."""
    on_progress = (listener or Listener()).on_progress
    return engine.prepare(
        fd, audio, options, max_audio_seconds=limit, on_progress=on_progress, resume=resume
    )


def run_job(
    engine: Engine[Any], fd: int, audio: AudioFormat, options: Options = GREEDY, **job: Any
) -> Transcription:
    """The answer; `job` has the listener, the limit and the checkpoint of `prepare`."""
    on = job.get("listener") or Listener()
    with prepare(engine, fd, audio, options, **{**job, "listener": on}) as prepared:
        return engine.run(prepared, on.on_progress, on.on_segment, on.on_checkpoint)


def transcribe(
    engine: Engine[Any],
    audio: Samples | bytes,
    options: Options = GREEDY,
    listener: Listener | None = None,
    resume: Checkpoint | None = None,
    **changes: Any,
) -> Transcription:
    """The answer for samples of 16 kHz, or for the bytes of a file."""
    data = audio if isinstance(audio, bytes) else audio.astype("<f4").tobytes()
    format_ = FILE if isinstance(audio, bytes) else F32
    with memory_file(data) as fd:
        options = dataclasses.replace(options, **changes)
        return run_job(engine, fd, format_, options, listener=listener, resume=resume)


def assert_resumable(
    engine: WhisperEngine, audio: Samples | bytes, least: int, options: Options
) -> Listener:
    """Asserts that attempts from each checkpoint, `least` of them or more, go on as if nothing had
    happened. Returns what the undisturbed attempt reported."""
    whole = Listener()
    result = transcribe(engine, audio, options, whole)
    assert len(whole.checkpoints) >= least
    for index, checkpoint in enumerate(whole.checkpoints):
        received = parse(Checkpoint, orjson.loads(orjson.dumps(dump(checkpoint))))
        assert received == checkpoint
        rest = Listener()
        found = transcribe(engine, audio, options, rest, received)
        assert found.segments == result.segments[checkpoint.segments :]
        assert rest.checkpoints == whole.checkpoints[index + 1 :]
        assert dataclasses.replace(found, text=result.text, segments=result.segments) == result
    return whole


def run_in_turns(job: Callable[[int, Listener], Transcription]) -> list[Transcription]:
    """Runs job 0 and job 1, each in a thread. They change at each report of progress, as in a
    worker."""
    turns = threading.Semaphore(1), threading.Semaphore(0)

    class Polite(Listener):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.own, self.other = turns[number], turns[1 - number]

        def on_progress(self, done: float, total: float | None) -> None:
            self.other.release()
            assert self.own.acquire(timeout=60)

    def run(number: int) -> Transcription:
        polite = Polite(number)
        try:
            assert polite.own.acquire(timeout=60)
            return job(number, polite)
        finally:
            # The other one goes on alone.
            polite.other.release(1_000_000)

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(run, (0, 1)))


class _Weights:
    def __init__(self, model: Any, before: Callable[[str], None]) -> None:
        self._model = model
        self._before = before

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        if name not in ("encode", "generate", "align", "detect_language"):
            return found

        def call(*args: Any, **options: Any) -> Any:
            self._before(name)
            return found(*args, **options)

        return call


def watched(engine: WhisperEngine, before: Callable[[str], None]) -> WhisperEngine:
    """The same engine; `before(name)` is called before each call of its weights."""
    other = copy.copy(engine)
    other._model = copy.copy(engine._model)
    other._model.model = _Weights(engine._model.model, before)
    return other


def edit(path: Path, **changes: Any) -> None:
    """Changes keys of a model's configuration."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def count_calls(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> list[None]:
    """A list that grows by one with each call of the function `name` of `where`."""
    calls: list[None] = []
    real = getattr(where, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, counting)
    return calls
