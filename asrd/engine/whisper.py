"""Speech to text by faster-whisper: the only module that imports it.

A job goes through `prepare` (check, open, decode, the first features; no model) and `run` (the
model), so that the next job can be prepared while one runs:

    descriptor -> audio.Recording -> [vad.SpeechFilter] -> windows.LogMel -> WhisperModel
"""

import os

# Read by the libraries when they are imported, so these stand above all imports.
# onnxruntime since 1.29 writes a device id into the home directory, and sends events.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# The features' one matrix product takes 0.1 ms in one thread, and 10 ms in two of two cores that
# are busy with inference.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import contextlib
import copy
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from asrd.config import WorkerSettings
from asrd.engine import cuda, models
from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import AudioReader, Samples
from asrd.engine.channels import Channels
from asrd.engine.hints import Hinted, read_hints
from asrd.engine.interface import OnProgress, OnSegment, Transcription
from asrd.engine.logmel import LogMel
from asrd.engine.prepared import Prepared, finite
from asrd.engine.silence import Quiet
from asrd.errors import BadRequest, InternalError, LoadError, OutOfMemory
from asrd.wire.records import WARNINGS_MAX, AudioFormat, Options, Segment

log = logging.getLogger(__name__)

_NO_AUDIO = np.zeros(0, np.float32)


class WhisperEngine:
    """A loaded faster-whisper model. See engine_api.Engine."""

    def __init__(self, model: Any, settings: WorkerSettings, facts: models.Facts) -> None:
        self.model = settings.model or "demo"
        self.translate = facts.multilingual
        self.word_timestamps = facts.word_timestamps
        self.languages: tuple[str, ...] = tuple(
            code
            for code in model.supported_languages
            if not facts.multilingual or model.hf_tokenizer.token_to_id(f"<|{code}|>") is not None
        )
        self.device: str = model.model.device
        self.compute_type: str = model.model.compute_type
        self.load_seconds = 0.0
        self._model = model
        self._vad = _Vad()
        if settings.vad_filter:
            self._vad.session()
        self._settings = settings
        self._facts = facts
        self._suppressed = _non_speech_tokens(model.hf_tokenizer)
        self._ran_out = False

    def prepare(
        self,
        fd: int,
        audio: AudioFormat,
        options: Options,
        *,
        max_audio_seconds: float,
        on_progress: OnProgress,
    ) -> Prepared | Channels:
        if not options.split_channels:
            return self._prepare(fd, audio, options, max_audio_seconds, None, on_progress)
        with self._open(fd, audio, options, max_audio_seconds, 0) as recording:
            count = recording.channels

        def prepare(channel: int, on_progress: OnProgress) -> Prepared:
            # All channels together may last as long as one recording. Of a recording that begins
            # with one channel, more may follow: all are mixed.
            only = channel if count > 1 else None
            limit = max_audio_seconds / count
            return self._prepare(fd, audio, options, limit, only, on_progress)

        return Channels(count, prepare, on_progress)

    def _prepare(
        self,
        fd: int,
        audio: AudioFormat,
        options: Options,
        limit: float,
        channel: int | None,
        on_progress: OnProgress,
    ) -> Prepared:
        # All that can fail without the recording comes before it: an error would hold it open for
        # as long as its traceback lives.
        arguments = self._arguments(options)
        hints, warnings = read_hints(options.hotwords, options.initial_prompt, self._encode)
        vad = self._settings.vad_filter if options.vad_filter is None else options.vad_filter
        session = self._vad.session() if vad else None
        filters = self._model.feature_extractor.mel_filters
        recording = self._open(fd, audio, options, limit, channel)
        with contextlib.ExitStack() as stack:
            prepared = stack.enter_context(
                Prepared(recording, arguments, hints, on_progress, filters, session)
            )
            prepared.warnings += warnings
            with prepared.honest_errors():
                prepared.read_ahead()
            stack.pop_all()
        return prepared

    def _open(
        self, fd: int, audio: AudioFormat, options: Options, limit: float, channel: int | None
    ) -> AudioReader:
        return open_recording(
            fd,
            audio,
            limit,
            track=options.audio_track,
            require_complete=bool(options.require_complete),
            channel=channel,
        )

    def run(
        self, prepared: Prepared | Channels, on_progress: OnProgress, on_segment: OnSegment
    ) -> Transcription:
        if isinstance(prepared, Channels):
            return prepared.run(self._run_one, on_progress, on_segment)
        return self._run_one(prepared, on_progress, on_segment)

    def _run_one(
        self, prepared: Prepared, on_progress: OnProgress, on_segment: OnSegment
    ) -> Transcription:
        prepared.on_progress = on_progress
        if self._ran_out:
            self._clear_error(prepared)
        try:
            return self._run(prepared, on_segment)
        except OutOfMemory:
            self._ran_out = self.device == "cuda"
            raise

    def _clear_error(self, prepared: Prepared) -> None:
        """CUDA keeps the error of a failed allocation for whoever looks for errors next, and that
        must not be another's job. Raises Poisoned if more than that is wrong."""
        with contextlib.suppress(OutOfMemory), prepared.honest_errors():
            self.warm()
        self._ran_out = False

    def _run(self, prepared: Prepared, on_segment: OnSegment) -> Transcription:
        model, quiet = self._model_for(prepared)
        segments: list[Segment] = []
        try:
            with prepared.honest_errors():
                found, info = model.transcribe(_NO_AUDIO, **prepared.arguments)
                with contextlib.closing(found):
                    for item in found:
                        segments.append(prepared.to_segment(item))
                        prepared.call(on_segment, segments[-1])
        finally:
            # Its methods hold it, and so all that the job held.
            vars(model).clear()
        return Transcription(
            text="".join(segment.text for segment in segments).strip(),
            language=quiet.language or info.language,
            language_probability=finite(
                quiet.language_probability if quiet.language else info.language_probability
            ),
            audio_seconds=prepared.recording.seconds,
            segments=tuple(segments),
            warnings=tuple(prepared.warnings[:WARNINGS_MAX]),
        )

    def _model_for(self, prepared: Prepared) -> tuple[Any, Quiet]:
        """The model as it is for one job: with its features and hints, and passing over silence."""
        model = copy.copy(self._model)
        model.feature_extractor = _Supply(self._model.feature_extractor, prepared.features)
        if prepared.hints:
            hinted = Hinted(self._model, prepared.hints)
            model.get_prompt, model.generate_with_fallback = hinted.get_prompt, hinted.generate
        quiet = Quiet(model, prepared.features)
        quiet.install()
        return model, quiet

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self._model.hf_tokenizer.encode(text, add_special_tokens=False).ids
        return tokens

    def check(self) -> None:
        """Raises LoadError for settings that would fail every job without a language."""
        language = self._settings.language
        if language and language not in self.languages:
            raise LoadError(f"language: the model does not know {language!r}")

    def warm(self) -> None:
        """Load whatever is loaded at first use: kernels and buffers.

        A GPU gets a whole window and both ways to decode it, which tells at once if its memory is
        too small. A CPU gets the least that goes through all layers once: more of a large model
        takes it a fifth of the time that loading does, and each recovery would wait for it.
        """
        model, tokenizer = self._model.model, self._model.hf_tokenizer
        on_gpu = self.device == "cuda"
        frames = 3000 if on_gpu else 2
        window = self._model.encode(np.zeros((model.n_mels, frames), np.float32))
        names = ["<|startoftranscript|>"]
        if self._facts.multilingual:
            names += [f"<|{self.languages[0]}|>", "<|transcribe|>"]
        prompt = [tokenizer.token_to_id(name) for name in names]
        aligns = self._facts.word_timestamps and self._settings.check_model
        if on_gpu:
            for how in {"beam_size": self._settings.beam_size}, {"sampling_temperature": 0.2}:
                model.generate(window, [prompt], max_length=16, return_no_speech_prob=True, **how)
        elif not aligns:
            model.generate(window, [prompt], max_length=len(prompt) + 1)
        if aligns:
            model.align(window, prompt, [[0]], frames)

    def _arguments(self, options: Options) -> dict[str, Any]:
        """faster-whisper's arguments. Raises BadRequest naming the field."""
        settings = self._settings
        language = options.language or settings.language or None
        if language is not None and language not in self.languages:
            known = ", ".join(self.languages[:3]) + (", …" if len(self.languages) > 3 else "")
            raise BadRequest(f"language: this model does not know {language!r} (only {known})")
        if options.task == "translate" and not self._facts.multilingual:
            raise BadRequest("task: an English-only model can't translate")
        if options.word_timestamps and not self._facts.word_timestamps:
            raise BadRequest("word_timestamps: this model has no alignment_heads")
        condition = options.condition_on_previous_text
        arguments: dict[str, Any] = {
            "language": language,
            "task": options.task,
            "beam_size": options.beam_size or settings.beam_size,
            "condition_on_previous_text": (
                settings.condition_on_previous_text if condition is None else condition
            ),
            "word_timestamps": bool(options.word_timestamps),
            # As if it were [-1], which has them looked up for every job. The list is extended.
            "suppress_tokens": list(self._suppressed),
        }
        if options.temperature is not None:
            if options.temperature == ():
                raise BadRequest("temperature: the list is empty")
            arguments["temperature"] = options.temperature
        return arguments


class _Vad:
    """The Silero model. At first use, unless the settings ask for it: onnxruntime takes longer to
    import than a small model to load, and most recoveries need not wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: Any = None

    def session(self) -> Any:
        """Raises InternalError, MemoryError; the next one tries again."""
        with self._lock:
            if self._session is None:
                self._session = _load_vad()
            return self._session


def _load_vad() -> Any:
    from faster_whisper.vad import get_vad_model

    try:
        return get_vad_model().session
    except MemoryError:
        raise
    except Exception as error:
        raise InternalError(f"vad_filter: the VAD can't be loaded: {error}") from error


def _non_speech_tokens(tokenizer: Any) -> tuple[int, ...]:
    from faster_whisper.tokenizer import Tokenizer

    # They are the same for all languages and tasks.
    found: tuple[int, ...] = Tokenizer(tokenizer, multilingual=False).non_speech_tokens
    return found


class _Supply:
    """Stands in for the feature extractor: whatever it is asked, the job's features it is."""

    def __init__(self, extractor: Any, features: LogMel) -> None:
        self._extractor = extractor
        self._features = features

    def __call__(self, audio: Samples, chunk_length: int | None = None) -> LogMel:
        return self._features

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)


def load_engine(
    settings: WorkerSettings, found: tuple[Path, models.Facts] | None = None
) -> WhisperEngine:
    """Load and warm the model that is configured; `found` is what `models.find` found.

    Raises LoadError: one sentence that says what to mend.
    """
    started = time.monotonic()
    path, facts = found or models.find(settings)
    ctranslate2, faster_whisper = _import_libraries()
    device = _choose_device(settings, ctranslate2.get_cuda_device_count)
    index = settings.device_index if device == "cuda" else 0
    try:
        supported = ctranslate2.get_supported_compute_types(device, index)
        _check_compute_type(settings, supported, device)
        model = faster_whisper.WhisperModel(
            str(path),
            device=device,
            device_index=index,
            compute_type=settings.compute_type,
            cpu_threads=settings.cpu_threads,
        )
        engine = WhisperEngine(model, settings, facts)
        engine.check()
        engine.warm()
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(f"the model in {path} can't be loaded on {device}: {error}") from error
    engine.load_seconds = time.monotonic() - started
    return engine


def _import_libraries() -> tuple[Any, Any]:
    import ctranslate2
    import faster_whisper
    import tqdm

    # At info it logs a line per job that knows nothing of jobs.
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)
    # Its progress bar is off, but would have a thread that looks after it.
    tqdm.tqdm.monitor_interval = 0
    return ctranslate2, faster_whisper


def _choose_device(settings: WorkerSettings, count_devices: Callable[[], int]) -> str:
    if settings.device == "cpu":
        return "cpu"
    reason = cuda.why_not(settings.device_index, count_devices)
    if reason is None:
        return "cuda"
    if settings.device == "cuda":
        raise LoadError(f"device cuda: {reason}")
    log.log(logging.WARNING if count_devices() else logging.INFO, "using the CPU: %s", reason)
    return "cpu"


def _check_compute_type(settings: WorkerSettings, supported: set[str], device: str) -> None:
    if settings.compute_type not in supported | {"default", "auto"}:
        raise LoadError(
            f"compute_type {settings.compute_type} is not supported on this {device}; "
            f"default, auto, {', '.join(sorted(supported))} are"
        )
