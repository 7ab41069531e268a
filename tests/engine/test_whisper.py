"""The engine against bare faster-whisper, against wrong requests, and against its libraries."""

import contextlib
import copy
import dataclasses
import gc
import json
import os
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens

from asrd.config import WorkerSettings
from asrd.demo import MODEL, samples
from asrd.engine import cuda, models
from asrd.engine import whisper as engine_module
from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.interface import Transcription
from asrd.engine.peak import READ_AHEAD_SECONDS
from asrd.engine.prepared import Prepared
from asrd.engine.whisper import WhisperEngine, _Vad, load_engine
from asrd.errors import (
    BadAudio,
    BadRequest,
    InternalError,
    LoadError,
    OutOfMemory,
    Poisoned,
    TooLarge,
)
from asrd.wire.fields import dump
from asrd.wire.languages import NAMES
from asrd.wire.records import AudioFormat, Options, Segment
from tests.support.exact import make_exact
from tests.support.sounds import encoded, memory_file, noise, s16, sample, silence, wav
from tests.support.subprocesses import run_python

S16 = AudioFormat("pcm_s16le")
F32 = AudioFormat("pcm_f32le")
SETTINGS = WorkerSettings(model="demo", device="cpu", cpu_threads=1, beam_size=2)
# One temperature: the others are sampled at random.
GREEDY = Options(language="en", beam_size=1, temperature=0.0)


@pytest.fixture(scope="module")
def engine() -> WhisperEngine:
    loaded = load_engine(SETTINGS)
    make_exact(loaded._model.feature_extractor)
    return loaded


@pytest.fixture(scope="module")
def minute() -> Samples:
    return sample("en-minute.flac")


class Listener:
    """What came before the answer; `at` says when to raise `error`: after so many calls of
    `on_progress` or `on_segment`."""

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

    def _raise(self, what: str) -> None:
        if self.error is not None and len(getattr(self, what)) == self._at.get(what):
            raise self.error


def transcribe(
    engine: WhisperEngine,
    audio: Samples | bytes,
    options: Options = GREEDY,
    listener: Listener | None = None,
    **changes: Any,
) -> Transcription:
    listener = listener or Listener()
    is_file = isinstance(audio, bytes)
    data = audio if isinstance(audio, bytes) else audio.astype("<f4").tobytes()
    with memory_file(data) as fd:
        format_ = AudioFormat("file") if is_file else F32
        return read_and_run(engine, fd, format_, dataclasses.replace(options, **changes), listener)


def read_and_run(
    engine: WhisperEngine,
    fd: int,
    format_: AudioFormat,
    options: Options,
    listener: Any,
) -> Transcription:
    with engine.prepare(
        fd, format_, options, max_audio_seconds=3600, on_progress=listener.on_progress
    ) as prepared:
        return engine.run(prepared, listener.on_progress, listener.on_segment)


def bare(engine: WhisperEngine, audio: Samples, **options: Any) -> tuple[list[Any], Any]:
    """faster-whisper itself, given the whole recording."""
    segments, info = engine._model.transcribe(audio, **options)
    return list(segments), info


def assert_same(ours: Transcription, theirs: list[Any], info: Any) -> None:
    assert [plain(segment) for segment in ours.segments] == [plain(segment) for segment in theirs]
    assert ours.text == "".join(segment.text for segment in theirs).strip()
    assert ours.language == info.language
    assert ours.language_probability == pytest.approx(info.language_probability, abs=1e-4)
    assert ours.audio_seconds == info.duration


def plain(segment: Any) -> tuple[Any, ...]:
    words = [(word.word, ms(word.start), ms(word.end)) for word in segment.words or ()]
    return segment.id, segment.text, ms(segment.start), ms(segment.end), words


def ms(seconds: float) -> int:
    return round(seconds * 1000)


def options_of(**options: Any) -> dict[str, Any]:
    return {"language": "en", "beam_size": 1, "temperature": 0.0, **options}


# --- the answer is faster-whisper's -------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"language": None},
        {"word_timestamps": True},
        {"vad_filter": True},
        {"vad_filter": True, "word_timestamps": True, "language": None},
        {"beam_size": 4, "initial_prompt": "hello", "hotwords": "green"},
        {"task": "translate", "language": "es"},
    ],
    ids=lambda options: ",".join(options) or "plain",
)
@pytest.mark.parametrize("name", ["en-4.wav", "en-several.wav", "es-0.wav"])
def test_a_recording_gets_the_answer_that_faster_whisper_gives(
    engine: WhisperEngine, name: str, options: dict[str, Any]
) -> None:
    audio, chosen = sample(name), options_of(**options)
    assert_same(transcribe(engine, audio, Options(**chosen)), *bare(engine, audio, **chosen))


@pytest.mark.parametrize(
    "options",
    [
        {"word_timestamps": True},
        {"vad_filter": True, "condition_on_previous_text": False},
    ],
    ids=lambda options: ",".join(options) or "plain",
)
def test_so_does_one_of_more_than_the_minutes_that_are_read_ahead(
    engine: WhisperEngine, minute: Samples, options: dict[str, Any]
) -> None:
    quiet, chosen = minute * np.float32(0.7), options_of(**options)
    parts = (minute, silence(3), quiet, noise(7.77), quiet, quiet, silence(30), quiet)
    audio = np.concatenate((*parts, sample("en-0.wav")))
    assert len(audio) > (READ_AHEAD_SECONDS + 30) * RATE
    assert_same(transcribe(engine, audio, Options(**chosen)), *bare(engine, audio, **chosen))


def test_bundled_recordings_are_understood(engine: WhisperEngine) -> None:
    for each in samples():
        if each.name in ("en-0.wav", "en-5.wav", "de-0.wav"):
            found = transcribe(engine, each.path.read_bytes(), Options(temperature=0.0))
            assert (found.language, found.text) == (each.language, each.text)


def test_the_way_in_which_a_recording_comes_does_not_show(
    engine: WhisperEngine, minute: Samples
) -> None:
    # The two are read in blocks of different lengths.
    audio = s16(np.concatenate((minute * np.float32(0.5), minute[: RATE * 10])))
    by_samples = transcribe(engine, audio * np.float32(1 / 32768))
    assert transcribe(engine, wav(audio.tobytes())) == by_samples


@pytest.mark.parametrize("vad_filter", [False, True])
@pytest.mark.parametrize("seconds", [0.001, 0.5, 90])
def test_silence_is_an_honest_empty_answer(
    engine: WhisperEngine, seconds: float, vad_filter: bool
) -> None:
    found = transcribe(engine, silence(seconds), vad_filter=vad_filter)
    assert (found.text, found.segments) == ("", ())
    assert found.audio_seconds == seconds


def test_the_answer_is_plain_data(engine: WhisperEngine) -> None:
    found = transcribe(engine, sample("en-0.wav"), word_timestamps=True, language=None)
    listener = Listener()
    again = transcribe(
        engine, sample("en-0.wav"), listener=listener, word_timestamps=True, language=None
    )
    assert tuple(listener.segments) == again.segments == found.segments
    values = [value for segment in found.segments for value in leaves(dump(segment))]
    assert {type(value) for value in values} == {int, float, str}
    assert orjson.loads(orjson.dumps(dump(found)))["text"] == found.text
    assert all(len(str(segment.end).partition(".")[2]) <= 3 for segment in found.segments)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [leaf for item in inner for leaf in leaves(item)]
    return [value]


def test_the_tokens_that_are_suppressed_are_faster_whisper_s(engine: WhisperEngine) -> None:
    given = engine._arguments(GREEDY)["suppress_tokens"]
    for language in "en", "de":
        tokenizer = Tokenizer(
            engine._model.hf_tokenizer, multilingual=True, task="transcribe", language=language
        )
        assert get_suppressed_tokens(tokenizer, given[:]) == get_suppressed_tokens(tokenizer, [-1])
    # A list of each job's own: faster-whisper extends it.
    assert engine._arguments(GREEDY)["suppress_tokens"] is not given


# --- progress, and stopping ---------------------------------------------------------------------


def test_every_window_is_told_before_it_is_encoded(
    engine: WhisperEngine, minute: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, told = Listener(), []
    encode = engine._model.encode

    def counting(features: Any) -> Any:
        told.append(listener.progress[-1][0])
        return encode(features)

    monkeypatch.setattr(engine._model, "encode", counting)
    transcribe(engine, np.concatenate((minute, minute)), listener=listener)
    assert len(told) >= 4
    assert told == sorted(set(told))
    assert [done for done, _ in listener.progress] == sorted(done for done, _ in listener.progress)
    assert {total for _, total in listener.progress} == {len(minute) * 2 / RATE}


def test_long_silence_gives_signs_of_life(engine: WhisperEngine) -> None:
    listener = Listener()
    transcribe(engine, silence(600), listener=listener, vad_filter=True)
    assert len(listener.progress) >= 600 // 33


class Stop(BaseException):
    pass


@pytest.mark.parametrize(
    "at", [{"progress": 1}, {"progress": 3}, {"progress": 5}, {"segments": 1}, {"segments": 4}]
)
@pytest.mark.parametrize(
    "error", [Stop(), ValueError(), MemoryError(), RuntimeError("CUDA failed with error x")]
)
def test_what_a_callback_raises_ends_the_job_and_comes_out(
    engine: WhisperEngine,
    minute: Samples,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    at: dict[str, int],
) -> None:
    flac = encoded(np.concatenate((minute, minute, minute)), "flac", "flac")
    encoded_windows = count_calls(monkeypatch, engine._model, "encode")
    listener = Listener(error, **at)
    with pytest.raises(type(error)) as caught:
        transcribe(engine, flac, listener=listener)
    assert caught.value is error
    called = {name: len(getattr(listener, name)) for name in at}
    assert called == at
    # The window in which it was raised is not encoded, or the last that was.
    assert len(encoded_windows) <= len(listener.progress)
    assert transcribe(engine, sample("en-0.wav")).text


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("stop", [None, Cancelled, OutOfMemory])
@pytest.mark.parametrize("vad_filter", [False, True])
def test_what_a_job_held_goes_with_it(
    engine: WhisperEngine,
    minute: Samples,
    monkeypatch: pytest.MonkeyPatch,
    no_collector: None,
    stop: type[Exception] | None,
    vad_filter: bool,
) -> None:
    """Not whenever the collector comes by: it is minutes of audio, and FFmpeg's resampler brings a
    pool of threads."""
    data = wav(s16(np.tile(np.repeat(minute, 3), 6)).tobytes(), rate=48_000)
    threads = threads_now()
    listener = Listener(Cancelled(), segments=2) if stop is Cancelled else Listener()
    if stop is OutOfMemory:
        monkeypatch.setattr(engine._model, "encode", run_out)
    options = dataclasses.replace(GREEDY, vad_filter=vad_filter)
    with memory_file(data) as fd:
        prepared = engine.prepare(
            fd,
            AudioFormat("file"),
            options,
            max_audio_seconds=3600,
            on_progress=listener.on_progress,
        )
        assert isinstance(prepared, Prepared)
        held = [prepared, prepared.features, prepared.recording, prepared._blocks]
        seen = [weakref.ref(each) for each in held]
        assert threads_now() - threads
        with contextlib.suppress(Cancelled, OutOfMemory):
            engine.run(prepared, listener.on_progress, listener.on_segment)
        prepared.close()
    listener.error = None  # Its traceback holds everything.
    del prepared, held
    assert [ref() for ref in seen] == [None] * len(seen)
    assert not threads_now() - threads


def threads_now() -> set[str]:
    return {task.name for task in Path("/proc/self/task").iterdir()}


def run_out(features: Any) -> Any:
    raise MemoryError


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def count_calls(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> list[None]:
    calls: list[None] = []
    real = getattr(where, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, counting)
    return calls


def test_a_job_may_be_prepared_in_another_thread_while_one_runs(
    engine: WhisperEngine, minute: Samples
) -> None:
    alone = transcribe(engine, sample("en-4.wav"))
    prepared: list[Any] = []
    data = sample("en-4.wav").tobytes()

    def prepare(fd: int) -> None:
        prepared.append(
            engine.prepare(
                fd, F32, GREEDY, max_audio_seconds=60, on_progress=Listener().on_progress
            )
        )

    with memory_file(data) as fd:
        thread = threading.Thread(target=prepare, args=(fd,))

        class Starter(Listener):
            def on_segment(self, segment: Segment) -> None:
                if not prepared:
                    thread.start()
                    thread.join()

        transcribe(engine, minute, listener=Starter())
        with prepared[0] as job:
            found = engine.run(job, Listener().on_progress, Listener().on_segment)
    assert found == alone


def test_jobs_prepared_while_others_run_get_the_same_answers(
    engine: WhisperEngine, minute: Samples
) -> None:
    short = encoded(sample("en-4.wav"), "flac", "flac")
    plain, spoken = transcribe(engine, short), transcribe(engine, short, vad_filter=True)
    alone = transcribe(engine, minute, vad_filter=True)
    ended = threading.Event()

    def others() -> list[Any]:
        return [
            engine.prepare(
                fd,
                AudioFormat("file"),
                dataclasses.replace(GREEDY, vad_filter=vad_filter),
                max_audio_seconds=60,
                on_progress=Listener().on_progress,
            )
            for vad_filter in (False, True)
        ]

    def run(job: Any) -> Transcription:
        with job:
            return engine.run(job, Listener().on_progress, Listener().on_segment)

    prepared: list[list[Any]] = []

    def keep_preparing() -> None:
        while not ended.is_set():
            prepared.append(others())

    with memory_file(short) as fd:
        thread = threading.Thread(target=keep_preparing)
        thread.start()
        try:
            again = transcribe(engine, minute, vad_filter=True)
        finally:
            ended.set()
            thread.join()
        found = [(run(first), run(second)) for first, second in prepared[-3:]]
        for jobs in prepared[:-3]:
            for job in jobs:
                job.close()
    assert again == alone
    assert len(prepared) > 1
    assert set(map(repr, found)) == {repr((plain, spoken))}


# --- how much is read, and kept -----------------------------------------------------------------


def test_the_first_segment_comes_before_the_rest_is_read(
    engine: WhisperEngine, minute: Samples
) -> None:
    with memory_file(s16(np.tile(minute, 8)).tobytes()) as fd:
        with engine.prepare(
            fd, S16, GREEDY, max_audio_seconds=3600, on_progress=Listener().on_progress
        ) as job:
            assert isinstance(job, Prepared)
            at_first: list[float] = []

            def stop(segment: Segment) -> None:
                at_first.append(job.recording.seconds)
                raise Stop

            with pytest.raises(Stop):
                engine.run(job, Listener().on_progress, stop)
    # One block more, to know whether there is one, and what one read brings too much.
    assert at_first[0] < READ_AHEAD_SECONDS + 2 * 33


def test_memory_does_not_grow_with_the_length(engine: WhisperEngine, minute: Samples) -> None:
    resident: list[int] = []

    class Watcher(Listener):
        def on_progress(self, done: float, total: float | None) -> None:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * os.sysconf("SC_PAGE_SIZE"))

    audio = s16(np.tile(np.concatenate((minute, silence(240))), 3)).tobytes()
    with memory_file(audio) as fd:
        del audio
        watcher = Watcher()
        read_and_run(engine, fd, S16, GREEDY, watcher)
    early = max(resident[: len(resident) // 3])
    assert max(resident) - early < 8 << 20


# --- what a request gets wrong ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"language": "xx"}, r"language: this model does not know 'xx' \(only "),
        ({"language": "EN"}, "language: "),
        ({"temperature": ()}, "temperature: the list is empty"),
    ],
)
def test_a_wrong_field_is_named(engine: WhisperEngine, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        transcribe(engine, sample("en-0.wav"), **wrong)


@pytest.mark.parametrize("field", ["initial_prompt", "hotwords"])
@pytest.mark.parametrize("text", ["", " ", "\0", "😀 \ud7ff", "<|startoftranscript|>", "<|30.00|>"])
def test_no_prompt_breaks_the_engine(engine: WhisperEngine, field: str, text: str) -> None:
    for prompt in (text, text * 500):
        options = dataclasses.replace(GREEDY, **{field: prompt})  # type: ignore[arg-type]
        assert transcribe(engine, sample("en-0.wav"), options).segments


def test_several_temperatures_are_taken(engine: WhisperEngine) -> None:
    found = transcribe(engine, sample("en-0.wav"), temperature=(0.0, 0.4))
    assert found.segments[0].temperature == 0.0


@pytest.mark.parametrize("data", [b"", b"no audio", bytes(5000)])
def test_bad_audio_is_told(engine: WhisperEngine, data: bytes) -> None:
    with pytest.raises(BadAudio):
        transcribe(engine, data)


def test_audio_that_is_truncated_while_it_is_transcribed_is_told(
    engine: WhisperEngine, minute: Samples
) -> None:
    listener = Listener()
    with memory_file(s16(np.tile(minute, 7)).tobytes()) as fd, pytest.raises(BadAudio) as caught:
        listener.on_segment = lambda segment: os.truncate(fd, 1000)  # type: ignore[method-assign]
        read_and_run(engine, fd, S16, GREEDY, listener)
    assert "truncated" in caught.value.text


def test_audio_that_is_too_long_is_told(engine: WhisperEngine) -> None:
    with memory_file(bytes(4 * RATE)) as fd, pytest.raises(TooLarge):
        engine.prepare(fd, S16, GREEDY, max_audio_seconds=1.9, on_progress=Listener().on_progress)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"language": "es"}, {"language": "es"}),
        ({"beam_size": 7}, {"beam_size": 7}),
        ({"condition_on_previous_text": False}, {"condition_on_previous_text": False}),
    ],
)
def test_what_a_request_leaves_open_is_the_settings(
    engine: WhisperEngine, settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    other = with_settings(engine, **settings)
    assert other._arguments(Options()).items() >= expected.items()
    own = Options(language="de", beam_size=3, condition_on_previous_text=True)
    assert other._arguments(own).items() >= {
        "language": "de", "beam_size": 3, "condition_on_previous_text": True
    }.items()  # fmt: skip


def test_the_settings_may_ask_for_vad(engine: WhisperEngine) -> None:
    audio = np.concatenate((silence(30), sample("en-4.wav")))
    other = with_settings(engine, vad_filter=True)
    listener = Listener()
    assert transcribe(other, audio, listener=listener).segments[0].start > 29
    assert listener.progress[-1][0] > 29
    transcribe(other, audio, listener=(refused := Listener()), vad_filter=False)
    assert refused.progress[1][0] == 0


def with_settings(engine: WhisperEngine, **changes: Any) -> WhisperEngine:
    other = copy.copy(engine)
    other._settings = dataclasses.replace(SETTINGS, **changes)
    return other


# --- what the libraries throw -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thrown", "told"),
    [
        (MemoryError("std::bad_alloc"), OutOfMemory),
        (MemoryError("std::bad_alloc: cudaErrorMemoryAllocation: out of memory"), OutOfMemory),
        (RuntimeError("mkl_malloc: failed to allocate memory"), OutOfMemory),
        (RuntimeError("CUDA failed with error out of memory"), OutOfMemory),
        (RuntimeError("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED"), OutOfMemory),
        (
            RuntimeError("parallel_for failed: cudaErrorMemoryAllocation: out of memory"),
            OutOfMemory,
        ),
        (RuntimeError("CUDA failed with error an illegal memory access was encountered"), Poisoned),
        (RuntimeError("CUDA failed with error unspecified launch failure"), Poisoned),
        (RuntimeError("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED"), Poisoned),
        (RuntimeError("cuDNN failed with status CUDNN_STATUS_INTERNAL_ERROR"), Poisoned),
        (RuntimeError("transform: failed to synchronize: cudaErrorLaunchFailure: x"), Poisoned),
        (RuntimeError("Library libcublas.so.12 is not found or cannot be loaded"), Poisoned),
        (RuntimeError("something else"), RuntimeError),
        (ValueError("CUDA"), ValueError),
    ],
)
def test_the_libraries_errors_are_told_apart(
    engine: WhisperEngine,
    monkeypatch: pytest.MonkeyPatch,
    thrown: Exception,
    told: type[Exception],
) -> None:
    def throw(features: Any) -> Any:
        raise thrown

    monkeypatch.setattr(engine._model, "encode", throw)
    with pytest.raises(told) as caught:
        transcribe(engine, sample("en-0.wav"))
    assert type(caught.value) is told


class Failing:
    """A model whose first windows fail, each with its own error."""

    def __init__(self, model: Any, *errors: str) -> None:
        self.model = model
        self.errors = list(errors)

    def __call__(self, features: Any) -> Any:
        if self.errors:
            raise RuntimeError(self.errors.pop(0))
        return self.model(features)


STALE = "parallel_for failed: cudaErrorMemoryAllocation: out of memory"


def on_cuda(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch, *errors: str
) -> tuple[WhisperEngine, Failing]:
    other = copy.copy(engine)
    other.device = "cuda"
    failing = Failing(engine._model.encode, "CUDA failed with error out of memory", *errors)
    monkeypatch.setattr(engine._model, "encode", failing)
    with pytest.raises(OutOfMemory):
        transcribe(other, sample("en-0.wav"))
    return other, failing


def test_the_error_that_a_full_gpu_leaves_is_not_the_next_job_s(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, failing = on_cuda(engine, monkeypatch, STALE)
    assert transcribe(other, sample("en-0.wav")).text == samples()[0].text
    # Once is enough.
    failing.errors = ["CUDA failed with error out of memory"]
    with pytest.raises(OutOfMemory):
        transcribe(other, sample("en-0.wav"))


def test_a_gpu_that_is_found_broken_after_it_was_full_poisons(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, _ = on_cuda(engine, monkeypatch, "CUDA failed with error unspecified launch failure")
    with pytest.raises(Poisoned):
        transcribe(other, sample("en-0.wav"))


def test_a_gpu_that_cannot_be_asked_for_its_types_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def throw(device: str, index: int) -> set[str]:
        raise RuntimeError("CUDA failed with error CUDA-capable device(s) is/are busy")

    monkeypatch.setattr("ctranslate2.get_supported_compute_types", throw)
    with pytest.raises(LoadError, match="can't be loaded on cpu: CUDA failed with error CUDA-cap"):
        load(MODEL)


# --- loading ------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the demo model, to be spoilt."""
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


def load(model: Path, **changes: Any) -> WhisperEngine:
    return load_engine(dataclasses.replace(SETTINGS, model=str(model), **changes))


def edit(path: Path, **changes: Any) -> None:
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **changes}))


def test_a_loaded_engine_says_what_it_is(engine: WhisperEngine) -> None:
    assert engine.model == "demo"
    assert (engine.device, engine.compute_type) == ("cpu", "int8_float32")
    assert {"en", "es", "de"} < set(engine.languages)
    assert 0 < engine.load_seconds < 20


def test_its_files_say_beforehand_what_it_can_do(engine: WhisperEngine) -> None:
    _, facts = models.find(SETTINGS)
    assert facts.languages == tuple(code for code in NAMES if code in engine.languages)
    assert set(facts.languages) == set(engine.languages)
    assert facts.multilingual == engine.translate
    assert facts.word_timestamps == engine.word_timestamps


def test_only_languages_that_the_vocabulary_has_are_known(model: Path) -> None:
    text = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").write_text(text.replace("<|yue|>", "<|other|>"))
    found = load(model)
    assert "yue" not in found.languages and "zh" in found.languages
    with pytest.raises(BadRequest, match="does not know 'yue'"):
        transcribe(found, silence(1), language="yue")


def test_an_english_model_refuses_what_it_can_not_do(model: Path) -> None:
    vocabulary = (model / "vocabulary.json").read_text()
    vocabulary = vocabulary.replace('""', '"other"').replace("<|es|>", "<|another|>")
    (model / "vocabulary.json").write_text(vocabulary)
    found = load(model)
    assert found.languages == ("en",) == models.check(model).languages
    assert not found.translate
    assert found._arguments(Options())["language"] is None
    with pytest.raises(BadRequest, match=r"language: this model does not know 'es' \(only en\)"):
        transcribe(found, silence(1), language="es")
    with pytest.raises(BadRequest, match="task: an English-only model can't translate"):
        transcribe(found, silence(1), task="translate")


def test_a_model_without_alignment_heads_has_no_word_times(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    del config["alignment_heads"]
    (model / "config.json").write_text(json.dumps(config))
    found = load(model)
    assert transcribe(found, sample("en-0.wav")).text
    with pytest.raises(BadRequest, match="word_timestamps: this model has no alignment_heads"):
        transcribe(found, sample("en-0.wav"), word_timestamps=True)


def test_a_model_that_crashes_on_word_times_loads_if_it_must(model: Path) -> None:
    edit(model / "config.json", alignment_heads=[[9, 0]])
    with pytest.raises(LoadError, match="alignment_heads"):
        load(model)
    assert transcribe(load(model, check_model=False), sample("en-0.wav")).text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"compute_type": "float8"}, "compute_type float8 is not supported on this cpu; default, "),
        ({"compute_type": "int8_float16"}, "compute_type int8_float16 is not supported"),
        ({"language": "xx"}, "language: the model does not know 'xx'"),
    ],
)
def test_settings_that_can_not_be_are_told(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(LoadError, match=says):
        load(MODEL, **changes)


def test_the_compute_type_is_the_one_asked_for() -> None:
    assert load(MODEL, compute_type="float32").compute_type == "float32"


def test_a_model_whose_mel_bands_differ_is_told(model: Path) -> None:
    edit(model / "preprocessor_config.json", feature_size=128)
    with pytest.raises(LoadError, match="takes 80 mel bands but its preprocessor"):
        load(model)


def test_a_spoilt_tokenizer_is_told(model: Path) -> None:
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(LoadError, match="can't be loaded on cpu: "):
        load(model)


@pytest.mark.parametrize("reason", ["no NVIDIA driver is installed", "libcublas.so.12 is missing"])
def test_without_a_gpu_auto_takes_the_cpu_and_cuda_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    monkeypatch.setattr(cuda, "why_not", lambda index, count_devices: reason)
    with pytest.raises(LoadError, match=f"device cuda: {reason}"):
        load(MODEL, device="cuda")
    with caplog.at_level("INFO"):
        assert load(MODEL, device="auto").device == "cpu"
    assert f"using the CPU: {reason}" in caplog.text


def test_a_worker_writes_nothing_into_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # onnxruntime since 1.29 would, and send it, if it were not told before it is imported.
    code = """
import os, sys
from asrd.engine.whisper import load_engine
from asrd.config import WorkerSettings
assert "faster_whisper" not in sys.modules
load_engine(WorkerSettings(model="demo", device="cpu"))
assert "onnxruntime" not in sys.modules, "a recovery that needs no VAD waits for it"
load_engine(WorkerSettings(model="demo", device="cpu", vad_filter=True))
assert "onnxruntime" in sys.modules
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
"""
    for name in os.environ:
        if name.startswith(("ORT_", "HF_", "XDG_")):
            monkeypatch.delenv(name)
    run_python(code, HOME=str(tmp_path))
    assert list(tmp_path.rglob("*")) == []


def test_the_collector_rests_until_the_model_is_loaded_and_leaves_it_alone() -> None:
    run_python("""
import gc
from asrd.config import WorkerSettings
from asrd.worker.main import _load_engine
gc.disable()
_load_engine(WorkerSettings(model="demo", device="cpu"), print)
assert gc.isenabled() and gc.get_freeze_count() > 10_000
""")
    run_python("""
import gc, sys
from asrd.worker import main
sys.argv = ["asr-worker", "0"]
main._configure = lambda args: sys.exit(gc.isenabled())
main.main()
""")


def test_two_threads_that_want_the_vad_load_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    both, loads = threading.Barrier(2), []

    def load() -> object:
        loads.append(1)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        return object()

    monkeypatch.setattr(engine_module, "_load_vad", load)
    vad = _Vad()
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(lambda _: vad.session(), range(2))
    assert one is other and loads == [1]


def test_a_vad_that_can_not_be_loaded_costs_only_who_wants_it(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch, no_collector: None
) -> None:
    def fail() -> Any:
        raise RuntimeError("no onnxruntime")

    other = with_settings(engine)
    other._vad = _Vad()
    opened: list[weakref.ref[Any]] = []

    def noting(*args: Any, **options: Any) -> Any:
        recording = open_recording(*args, **options)
        opened.append(weakref.ref(recording))
        return recording

    monkeypatch.setattr(engine_module, "open_recording", noting)
    monkeypatch.setattr("faster_whisper.vad.get_vad_model", fail)
    with pytest.raises(InternalError, match="vad_filter: the VAD can't be loaded: no onnxruntime"):
        transcribe(other, sample("en-0.wav"), vad_filter=True)
    assert [recording() for recording in opened if recording() is not None] == []
    assert transcribe(other, sample("en-0.wav")).text
    monkeypatch.undo()
    assert transcribe(other, sample("en-0.wav"), vad_filter=True).text


@pytest.mark.gpu
@pytest.mark.parametrize("compute_type", ["default", "float16", "int8_float16"])
def test_a_gpu_gives_the_same_text(compute_type: str) -> None:
    found = load(MODEL, device="cuda", compute_type=compute_type)
    assert found.device == "cuda"
    for each in samples():
        # The tiny model hears a Spanish word otherwise with int8 weights, on a CPU, too.
        if each.seconds < 5 and each.language == "en":
            assert transcribe(found, each.path.read_bytes()).text == each.text
