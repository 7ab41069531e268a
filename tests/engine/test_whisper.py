"""The engine against bare faster-whisper, against wrong requests, and against its libraries."""

import contextlib
import copy
import dataclasses
import gc
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from faster_whisper import WhisperModel

from asrd.demo import MODEL, samples
from asrd.engine import cuda, peak
from asrd.engine import whisper as engine_module
from asrd.engine.arguments import Arguments
from asrd.engine.audio.reader import BLOCK_SECONDS, RATE, Samples
from asrd.engine.model_check import check
from asrd.engine.weights import _compute_type
from asrd.engine.whisper import WhisperEngine, load_engine
from asrd.errors import BadRequest, InternalError, JobError, LoadError, OutOfMemory, Poisoned
from asrd.settings import WorkerSettings
from asrd.wire.fields import dump
from asrd.wire.options import Options
from tests.support.engine_jobs import (
    FILE,
    GREEDY,
    S16,
    SETTINGS,
    Listener,
    count_calls,
    edit,
    prepare,
    run_job,
    transcribe,
    watched,
)
from tests.support.sounds import encoded, memory_file, noise, s16, sample, silence, wav
from tests.support.subprocesses import run_python


def assert_same(engine: WhisperEngine, audio: Samples, **options: Any) -> None:
    """The answer with full windows is faster-whisper's, which gets the whole recording."""
    chosen = {"language": "en", "beam_size": 1, "temperature": 0.0, **options}
    ours = transcribe(engine, audio, Options(**chosen, window="full"))
    found, info = engine._model.transcribe(audio, **chosen)
    theirs = list(found)
    assert [plain(segment) for segment in ours.segments] == [plain(segment) for segment in theirs]
    assert ours.text == "".join(segment.text for segment in theirs).strip()
    assert ours.language == info.language
    assert ours.language_probability == pytest.approx(info.language_probability, abs=1e-4)
    assert ours.audio_seconds == info.duration


def plain(segment: Any) -> tuple[Any, ...]:
    words = [(word.word, ms(word.start), ms(word.end)) for word in segment.words or ()]
    # faster-whisper lets some words begin before their segments, or end after them.
    start = min([ms(segment.start), *(first for _, first, _ in words)])
    end = max([ms(segment.end), *(last for _, _, last in words)])
    return segment.id, segment.text, start, end, words


def ms(seconds: float) -> int:
    return round(seconds * 1000)


def option_names(options: dict[str, Any]) -> str:
    return ",".join(options) or "plain"


# --- the answer is faster-whisper's -------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"vad_filter": True, "word_timestamps": True, "language": None},
        {"beam_size": 4, "initial_prompt": "hello", "hotwords": "green"},
        {"task": "translate", "language": "es"},
    ],
    ids=option_names,
)
@pytest.mark.parametrize("name", ["en-4.wav", "en-several.wav", "es-0.wav"])
def test_answer_is_that_of_faster_whisper(
    engine: WhisperEngine, name: str, options: dict[str, Any]
) -> None:
    assert_same(engine, sample(name), **options)


@pytest.mark.parametrize(
    "options",
    [{"word_timestamps": True}, {"vad_filter": True, "condition_on_previous_text": False}],
    ids=option_names,
)
def test_answer_for_more_than_is_read_ahead_is_the_same(
    engine: WhisperEngine,
    minute: Samples,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    # Instead of five minutes.
    monkeypatch.setattr(peak, "_READ_AHEAD_BLOCKS", 60 // BLOCK_SECONDS + 1)
    quiet = minute * np.float32(0.7)
    parts = (minute, silence(3), quiet[: 20 * RATE], noise(7.77), silence(30), quiet)
    assert_same(engine, np.concatenate((*parts, sample("en-0.wav"))), **options)


@pytest.mark.parametrize("vad_filter", [False, True])
@pytest.mark.parametrize("seconds", [0.001, 90])
def test_silence_gives_an_empty_answer(
    engine: WhisperEngine, seconds: float, vad_filter: bool
) -> None:
    found = transcribe(engine, silence(seconds), vad_filter=vad_filter)
    assert (found.text, found.segments, found.audio_seconds) == ("", (), seconds)


def test_answer_is_plain_data(engine: WhisperEngine) -> None:
    listener = Listener()
    found = transcribe(engine, sample("en-0.wav"), listener=listener, word_timestamps=True)
    assert tuple(listener.segments) == found.segments
    # numpy's numbers would be no JSON.
    assert orjson.loads(orjson.dumps(dump(found)))["text"] == found.text == samples()[0].text
    assert all(len(str(segment.end).partition(".")[2]) <= 3 for segment in found.segments)


# --- progress, cancellation, memory -------------------------------------------------------------


def test_progress_is_reported_before_each_window(
    engine: WhisperEngine, minute: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, at_windows = Listener(), []
    encode = WhisperModel.encode

    def noting(model: Any, features: Any) -> Any:
        at_windows.append(listener.progress[-1][0])
        return encode(model, features)

    monkeypatch.setattr(WhisperModel, "encode", noting)
    transcribe(engine, np.concatenate((minute, minute)), listener=listener)
    assert len(at_windows) >= 4
    assert at_windows == sorted(set(at_windows))
    done = [seconds for seconds, _ in listener.progress]
    assert done == sorted(done)
    assert {total for _, total in listener.progress} == {len(minute) * 2 / RATE}


def test_progress_is_reported_during_long_silence(engine: WhisperEngine) -> None:
    listener = Listener()
    transcribe(engine, silence(600), listener=listener, vad_filter=True)
    assert len(listener.progress) >= 600 // 33


def test_progress_is_reported_before_each_text(engine: WhisperEngine) -> None:
    """Six texts of one window may take longer than a job that is cancelled may go on."""
    always: Any = {"compression_ratio_threshold": 0.0, "window": "full"}
    reports = []
    for temperatures in (0.0,), (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        listener = Listener()
        transcribe(
            engine, sample("en-0.wav"), listener=listener, temperature=temperatures, **always
        )
        reports.append(len(listener.progress))
    assert reports[1] - reports[0] == 5


class Stop(BaseException):
    pass


@pytest.mark.parametrize(
    "at", [{"progress": 1}, {"progress": 5}, {"segments": 1}, {"checkpoints": 1}]
)
@pytest.mark.parametrize("error", [Stop(), MemoryError(), RuntimeError("CUDA failed with error x")])
def test_error_of_a_callback_ends_the_job_unchanged(
    engine: WhisperEngine,
    minute: Samples,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    at: dict[str, int],
) -> None:
    flac = encoded(np.concatenate((minute, minute, minute)), "flac", "flac")
    windows = count_calls(monkeypatch, WhisperModel, "encode")
    listener = Listener(error, **at)
    with pytest.raises(type(error)) as caught:
        transcribe(engine, flac, listener=listener)
    assert caught.value is error
    assert {name: len(getattr(listener, name)) for name in at} == at
    # The callback's window is not encoded, or is the last that was.
    assert len(windows) <= len(listener.progress)


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("stop", [None, Cancelled, OutOfMemory])
@pytest.mark.parametrize("vad_filter", [False, True])
def test_ended_job_frees_everything_it_held(
    engine: WhisperEngine,
    minute: Samples,
    monkeypatch: pytest.MonkeyPatch,
    no_collector: None,
    stop: type[Exception] | None,
    vad_filter: bool,
) -> None:
    """Without the collector: it is minutes of audio, and FFmpeg's resampler has threads."""
    # The recording is longer than what is read ahead.
    monkeypatch.setattr(peak, "_READ_AHEAD_BLOCKS", 60 // BLOCK_SECONDS + 1)
    data = wav(s16(np.tile(np.repeat(minute, 3), 2)).tobytes(), rate=48_000)
    threads = threads_now()
    listener = Listener(Cancelled(), segments=2) if stop is Cancelled else Listener()
    if stop is OutOfMemory:
        monkeypatch.setattr(WhisperModel, "encode", throw(MemoryError()))
    options = dataclasses.replace(GREEDY, vad_filter=vad_filter)
    with memory_file(data) as fd:
        prepared = prepare(engine, fd, FILE, options, listener)
        held = [prepared, prepared.features, prepared.recording, prepared._blocks]
        seen = [weakref.ref(each) for each in held]
        assert threads_now() - threads
        with contextlib.suppress(Cancelled, OutOfMemory):
            engine.run(prepared, listener.on_progress, listener.on_segment, listener.on_checkpoint)
        prepared.close()
    # The traceback of each error holds everything.
    listener.error = None
    monkeypatch.undo()
    del prepared, held
    assert [ref() for ref in seen] == [None] * len(seen)
    assert not threads_now() - threads


def threads_now() -> set[str]:
    return {task.name for task in Path("/proc/self/task").iterdir()}


def throw(error: Exception) -> Callable[..., Any]:
    def function(*args: Any) -> Any:
        # An error of its own for each call: one kept here would hold its traceback.
        raise type(error)(*error.args)

    return function


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_memory_does_not_grow_with_the_length(engine: WhisperEngine, minute: Samples) -> None:
    resident: list[int] = []

    class Watcher(Listener):
        def on_progress(self, done: float, total: float | None) -> None:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * os.sysconf("SC_PAGE_SIZE"))

    part = s16(np.concatenate((minute, silence(240)))).tobytes()
    with memory_file(part) as fd:
        # The process may never have worked on so much at once.
        run_job(engine, fd, S16)
    with memory_file(3 * part) as fd:
        del part
        run_job(engine, fd, S16, listener=Watcher())
    early = max(resident[: len(resident) // 3])
    assert max(resident) - early < 8 << 20


# --- wrong requests -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"language": "xx"}, r"language: this model does not know 'xx' \(only "),
        ({"temperature": ()}, "temperature: the list is empty"),
    ],
)
def test_wrong_field_is_named(engine: WhisperEngine, wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        transcribe(engine, sample("en-0.wav"), **wrong)


@pytest.mark.parametrize("field", ["initial_prompt", "hotwords"])
@pytest.mark.parametrize("text", ["\0", "😀 \ud7ff", "<|startoftranscript|>", "<|30.00|>"])
def test_no_hint_breaks_the_engine(engine: WhisperEngine, field: str, text: str) -> None:
    for times in (1, 500):
        hints: dict[str, Any] = {field: text * times}
        assert transcribe(engine, sample("en-0.wav"), **hints).segments


def test_several_temperatures_are_taken(engine: WhisperEngine) -> None:
    found = transcribe(engine, sample("en-0.wav"), temperature=(0.0, 0.4))
    assert found.segments[0].temperature == 0.0


def test_settings_may_ask_for_the_vad(engine: WhisperEngine) -> None:
    audio = np.concatenate((silence(30), sample("en-4.wav")))
    other = with_settings(engine, vad_filter=True)
    listener = Listener()
    assert transcribe(other, audio, listener=listener).segments[0].start > 29
    assert listener.progress[-1][0] > 29
    transcribe(other, audio, listener=(refused := Listener()), vad_filter=False)
    assert refused.progress[1][0] == 0


def with_settings(engine: WhisperEngine, **changes: Any) -> WhisperEngine:
    other, settings = copy.copy(engine), dataclasses.replace(SETTINGS, **changes)
    facts = engine._arguments._facts
    other._arguments = Arguments(engine._model.hf_tokenizer, settings, facts)
    return other


# --- errors of the libraries --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thrown", "expected"),
    [
        (MemoryError("std::bad_alloc"), OutOfMemory),
        (MemoryError("std::bad_alloc: cudaErrorMemoryAllocation: out of memory"), OutOfMemory),
        (RuntimeError("mkl_malloc: failed to allocate memory"), OutOfMemory),
        (RuntimeError("CUDA failed with error out of memory"), OutOfMemory),
        (RuntimeError("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED"), OutOfMemory),
        (RuntimeError("CUDA failed with error an illegal memory access was encountered"), Poisoned),
        (RuntimeError("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED"), Poisoned),
        (RuntimeError("cuDNN failed with status CUDNN_STATUS_INTERNAL_ERROR"), Poisoned),
        (RuntimeError("transform: failed to synchronize: cudaErrorLaunchFailure: x"), Poisoned),
        (RuntimeError("Library libcublas.so.12 is not found or cannot be loaded"), Poisoned),
        (RuntimeError("something else"), RuntimeError),
        (ValueError("CUDA"), ValueError),
    ],
)
def test_errors_of_the_libraries_are_translated(
    engine: WhisperEngine,
    monkeypatch: pytest.MonkeyPatch,
    thrown: Exception,
    expected: type[Exception],
) -> None:
    monkeypatch.setattr(WhisperModel, "encode", throw(thrown))
    with pytest.raises(expected) as caught:
        transcribe(engine, sample("en-0.wav"))
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("parallel_for failed: cudaErrorMemoryAllocation: out of memory", None),
        ("CUDA failed with error unspecified launch failure", Poisoned),
    ],
)
def test_error_that_a_full_gpu_leaves_fails_no_other_job(
    engine: WhisperEngine,
    text: str,
    expected: type[JobError] | None,
) -> None:
    full = "CUDA failed with error out of memory"
    errors: list[str] = []

    def fail_first(call: str) -> None:
        if errors:
            raise RuntimeError(errors.pop(0))

    other = watched(engine, fail_first)
    other.device = "cuda"

    class Between(Listener):
        """Before the text of its first window, other jobs have their turns."""

        def on_progress(self, done: float, total: float | None) -> None:
            super().on_progress(done, total)
            if len(self.progress) == 4:
                errors.extend((full, text))
                with pytest.raises(OutOfMemory):
                    transcribe(other, sample("en-0.wav"))

    listener = Between()
    if expected is not None:
        with pytest.raises(expected):
            transcribe(other, sample("en-0.wav"), listener=listener)
        return
    assert transcribe(other, sample("en-0.wav"), listener=listener).text == samples()[0].text
    # Cleared once, after the failed allocation only.
    errors.append(full)
    with pytest.raises(OutOfMemory):
        transcribe(other, sample("en-0.wav"))


# --- loading ------------------------------------------------------------------------------------


def load(model: Path, **changes: Any) -> WhisperEngine:
    return load_engine(dataclasses.replace(SETTINGS, model=str(model), **changes))


def test_loaded_engine_knows_its_abilities(engine: WhisperEngine) -> None:
    assert (engine.model, engine.device, engine.compute_type) == ("demo", "cpu", "int8_float32")
    assert (engine.translate, engine.word_timestamps) == (True, True)
    assert set(engine.languages) == set(engine._model.supported_languages)
    assert 0 < engine.load_seconds < 20


def test_language_that_the_vocabulary_lacks_is_refused(model: Path) -> None:
    for name in ("tokenizer.json", "vocabulary.json"):
        text = (model / name).read_text()
        (model / name).write_text(text.replace("<|yue|>", "<|other|>"))
    found = load(model)
    assert "yue" not in found.languages and "zh" in found.languages
    with pytest.raises(BadRequest, match="does not know 'yue'"):
        transcribe(found, silence(1), language="yue")


def test_english_model_refuses_other_languages_and_translation(model: Path) -> None:
    vocabulary = (model / "vocabulary.json").read_text()
    vocabulary = vocabulary.replace('""', '"other"').replace("<|es|>", "<|another|>")
    (model / "vocabulary.json").write_text(vocabulary)
    found = load(model)
    assert found.languages == ("en",) == check(model).languages
    assert not found.translate
    assert "language" not in found._arguments.of(found._arguments.merged(Options()))
    with pytest.raises(BadRequest, match=r"language: this model does not know 'es' \(only en\)"):
        transcribe(found, silence(1), language="es")
    with pytest.raises(BadRequest, match="task: an English-only model can't translate"):
        transcribe(found, silence(1), task="translate")


def test_model_without_alignment_heads_has_no_word_times(model: Path) -> None:
    edit(model / "config.json", alignment_heads=None)
    found = load(model)
    assert transcribe(found, sample("en-0.wav")).text
    with pytest.raises(BadRequest, match="word_timestamps: this model has no alignment_heads"):
        transcribe(found, sample("en-0.wav"), word_timestamps=True)


def test_model_has_every_attribute_of_faster_whispers(engine: WhisperEngine) -> None:
    """asrd does not call WhisperModel.__init__, which would load the weights by itself."""
    original = vars(WhisperModel(str(MODEL), device="cpu"))
    own = vars(engine._model)
    assert own.keys() == original.keys()
    plain = {key for key, value in original.items() if isinstance(value, (int, float, dict))}
    assert len(plain) > 6
    assert {key: own[key] for key in plain} == {key: original[key] for key in plain}


@pytest.mark.parametrize(
    ("device", "supported", "chosen"),
    [
        ("cpu", {"int8", "float32"}, "int8"),
        ("cpu", {"float32"}, "default"),
        ("cuda", {"int8", "float16"}, "default"),
    ],
)
def test_compute_type_is_chosen_for_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, supported: set[str], chosen: str
) -> None:
    monkeypatch.setattr("ctranslate2.get_supported_compute_types", lambda *_: supported)
    assert _compute_type(WorkerSettings(), device, 0) == chosen
    assert _compute_type(WorkerSettings(compute_type="auto"), device, 0) == "auto"


def test_model_that_would_crash_loads_only_without_its_check(model: Path) -> None:
    edit(model / "config.json", alignment_heads=[[9, 0]])
    with pytest.raises(LoadError, match="alignment_heads"):
        load(model)
    found = load(model, check_model=False, compute_type="float32")
    assert found.compute_type == "float32"
    assert transcribe(found, sample("en-0.wav")).text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"compute_type": "float8"}, "compute_type float8 is not supported on this cpu; default, "),
        ({"language": "xx"}, "language: this model does not know 'xx'"),
        ({"suppress_tokens": (1 << 20,)}, "suppress_tokens: this model's tokens end at"),
        ({"patience": 0.1}, "patience: must be at least"),
    ],
)
def test_impossible_setting_is_named(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(LoadError, match=text):
        load(MODEL, **changes)


def test_library_that_can_not_load_the_model_is_quoted(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(LoadError, match="can't be loaded on cpu: "):
        load(model)
    busy = RuntimeError("CUDA failed with error CUDA-capable device(s) is/are busy")
    monkeypatch.setattr("ctranslate2.get_supported_compute_types", throw(busy))
    with pytest.raises(LoadError, match="can't be loaded on cpu: CUDA failed with error CUDA-cap"):
        load(MODEL)


def test_auto_falls_back_to_the_cpu_and_cuda_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reason = "no NVIDIA driver is installed"
    monkeypatch.setattr(cuda, "why_not", lambda index, count: reason)
    with pytest.raises(LoadError, match=f"device cuda: {reason}"):
        load(MODEL, device="cuda")
    with caplog.at_level("INFO"):
        assert load(MODEL, device="auto").device == "cpu"
    assert f"using the CPU: {reason}" in caplog.text


def test_worker_writes_nothing_into_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # onnxruntime since 1.29 would, and send it, without a variable that it reads when imported.
    code = """
import os, sys
from asrd.engine.whisper import load_engine
from asrd.settings import WorkerSettings
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


def test_collector_rests_until_the_model_is_loaded() -> None:
    run_python("""
import gc
from asrd.settings import WorkerSettings
from asrd.worker.main import _load_engine
gc.disable()
_load_engine(WorkerSettings(model="demo", device="cpu"), 1, print)
assert gc.isenabled() and gc.get_freeze_count() > 10_000
""")
    run_python("""
import gc, sys
from asrd.worker import main
sys.argv = ["asr-worker", "0"]
main._configure = lambda args: sys.exit(gc.isenabled())
main.main()
""")


def test_vad_that_can_not_be_loaded_fails_only_jobs_that_use_it(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = count_calls(monkeypatch, engine_module, "open_recording")
    monkeypatch.setattr(engine_module, "get_vad_model", throw(RuntimeError("no onnxruntime")))
    with pytest.raises(InternalError, match="the VAD can't be loaded: no onnxruntime"):
        transcribe(engine, sample("en-0.wav"), vad_filter=True)
    # An open recording would live as long as the error's traceback.
    assert not opened
    assert transcribe(engine, sample("en-0.wav")).text
