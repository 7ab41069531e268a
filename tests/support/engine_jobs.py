"""Jobs of an engine in this process, as the worker runs them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from asrd.engine.audio.reader import Samples
from asrd.engine.interface import Transcription
from asrd.engine.whisper import WhisperEngine
from asrd.settings import WorkerSettings
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat, Segment
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
        self.error = error
        self._at = at

    def on_progress(self, done: float, total: float | None) -> None:
        self.progress.append((done, total))
        self._raise("progress")

    def on_segment(self, segment: Segment) -> None:
        self.segments.append(segment)
        self._raise("segments")

    def _raise(self, kind: str) -> None:
        if self.error is not None and len(getattr(self, kind)) == self._at.get(kind):
            raise self.error


def prepare(
    engine: WhisperEngine,
    fd: int,
    audio: AudioFormat,
    options: Options = GREEDY,
    listener: Listener | None = None,
    limit: float = 3600.0,
) -> Any:
    """A prepared job, which must be closed."""
    on_progress = (listener or Listener()).on_progress
    return engine.prepare(fd, audio, options, max_audio_seconds=limit, on_progress=on_progress)


def run_job(
    engine: WhisperEngine, fd: int, audio: AudioFormat, options: Options = GREEDY, **job: Any
) -> Transcription:
    """The answer; `job` has the listener and the limit of `prepare`."""
    listener = job.get("listener") or Listener()
    with prepare(engine, fd, audio, options, **{**job, "listener": listener}) as prepared:
        return engine.run(prepared, listener.on_progress, listener.on_segment)


def transcribe(
    engine: WhisperEngine,
    audio: Samples | bytes,
    options: Options = GREEDY,
    listener: Listener | None = None,
    **changes: Any,
) -> Transcription:
    """The answer for samples of 16 kHz, or for the bytes of a file."""
    data = audio if isinstance(audio, bytes) else audio.astype("<f4").tobytes()
    format_ = FILE if isinstance(audio, bytes) else F32
    with memory_file(data) as fd:
        options = dataclasses.replace(options, **changes)
        return run_job(engine, fd, format_, options, listener=listener)


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
