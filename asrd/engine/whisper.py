"""The engine: Faster Whisper, with a recording that is read while it is transcribed.

A job goes through `prepare` (checks, the first minutes of audio and their features; no model) and
`run` (the model):

    descriptor -> AudioReader -> [SpeechFilter] -> LogMel -> JobModel -> segments
"""

import os

# The libraries read these when they are imported, so they stand above all imports.
# onnxruntime since 1.29 writes a device id into the home directory, and sends events.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

# Before numpy: it sets a variable that numpy reads.
from asrd.engine.weights import Weights  # isort: skip

import numpy as np
import tokenizers
import tqdm
from faster_whisper import WhisperModel
from faster_whisper.feature_extractor import FeatureExtractor
from faster_whisper.utils import get_logger
from faster_whisper.vad import VadOptions, get_vad_model

from asrd.engine import cuda, models
from asrd.engine.arguments import Arguments, detection
from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import AudioReader
from asrd.engine.batched import BatchedModel, vad_options, windows_at_once
from asrd.engine.channels import Channels
from asrd.engine.combinations import is_batched
from asrd.engine.hints import read_hints
from asrd.engine.interface import OnCheckpoint, OnProgress, OnSegment, Transcription
from asrd.engine.job_model import JobModel
from asrd.engine.model_check import Facts
from asrd.engine.prepared import Prepared, finite
from asrd.engine.selftest import SelfTest
from asrd.engine.speech import SpeechSearch
from asrd.engine.spoken import OnWindow
from asrd.engine.vad import Vad
from asrd.errors import InternalError, LoadError, OutOfMemory, Poisoned
from asrd.settings import WorkerSettings
from asrd.wire.fields import dump
from asrd.wire.options import Options
from asrd.wire.records import WARNINGS_MAX, AudioFormat, Checkpoint, Segment

log = logging.getLogger(__name__)

# At info, faster-whisper logs a line per job that does not name the job.
logging.getLogger("faster_whisper").setLevel(logging.WARNING)
# faster-whisper's progress bar is off, but would start a thread that watches it, and from Python
# 3.14 on a process for its lock.
tqdm.tqdm.monitor_interval = 0
tqdm.tqdm.set_lock(threading.RLock())


class WhisperEngine:
    """A loaded faster-whisper model. See asrd.engine.interface.Engine."""

    speech = True
    speakers = False

    def __init__(self, model: Any, settings: WorkerSettings, facts: Facts) -> None:
        self.model = settings.model or "demo"
        self.translate = facts.multilingual
        self.word_timestamps = facts.word_timestamps
        self.languages = facts.languages
        self.device: str = model.model.device
        self.compute_type: str = model.model.compute_type
        self.cpu_threads = settings.cpu_threads if self.device == "cpu" else 0
        self.load_seconds = 0.0
        self._model = model
        self._settings = settings
        # Alignment heads that nobody checked may crash CTranslate2.
        self._aligns = facts.word_timestamps and settings.check_model
        self._arguments = Arguments(model.hf_tokenizer, settings, facts)
        self._self_test = SelfTest(model, self.languages[0]) if settings.self_test else None
        self._ran_out = False

    def prepare(
        self,
        fd: int,
        audio: AudioFormat,
        options: Options,
        *,
        max_audio_seconds: float,
        on_progress: OnProgress,
        resume: Checkpoint | None = None,
    ) -> Prepared | Channels | SpeechSearch:
        if resume is None:
            options = self._arguments.merged(options)
        else:
            options = self._arguments.resumed(options, resume)

        def open_audio(seconds: float, channel: int | None) -> AudioReader:
            return open_recording(
                fd,
                audio,
                seconds,
                track=options.audio_track,
                require_complete=bool(options.require_complete),
                channel=channel,
            )

        if options.task == "speech":
            # Before the recording is opened: see _prepare.
            vad = _vad(options)
            return SpeechSearch(open_audio(max_audio_seconds, None), vad)
        count = 1
        if options.split_channels:
            with open_audio(max_audio_seconds, 0) as recording:
                count = recording.channels

        def prepare(
            channel: int, on_progress: OnProgress, resume: Checkpoint | None = None
        ) -> Prepared:
            # All channels together may last as long as one recording. A recording that begins with
            # one channel may go on with more: all of them are mixed.
            only = channel if count > 1 else None
            reader = partial(open_audio, max_audio_seconds / count, only)
            return self._prepare(options, reader, on_progress, resume)

        if options.split_channels:
            return Channels(count, prepare, on_progress)
        return prepare(0, on_progress, resume)

    def _prepare(
        self,
        options: Options,
        open_audio: Callable[[], AudioReader],
        on_progress: OnProgress,
        resume: Checkpoint | None,
    ) -> Prepared:
        # Every check that needs no recording comes before it is opened: the traceback of an error
        # would hold it.
        arguments = self._arguments.of(options)
        encode = self._arguments.encode
        hints, warnings = read_hints(options.hotwords, options.initial_prompt, encode)
        vad = _vad(options) if options.vad_filter else None
        with contextlib.ExitStack() as stack:
            prepared = stack.enter_context(
                Prepared(
                    open_audio(),
                    options,
                    arguments,
                    hints,
                    on_progress,
                    filters=self._model.feature_extractor.mel_filters,
                    vad=vad,
                    reopen=open_audio,
                    resume=resume,
                )
            )
            prepared.warnings += warnings
            with prepared.translate_engine_errors():
                prepared.read_ahead()
            stack.pop_all()
        return prepared

    def run(
        self,
        prepared: Prepared | Channels | SpeechSearch,
        on_progress: OnProgress,
        on_segment: OnSegment = lambda segment: None,
        on_checkpoint: OnCheckpoint = lambda checkpoint: None,
    ) -> Transcription:
        if isinstance(prepared, SpeechSearch):
            return prepared.run(on_progress, on_segment)
        if isinstance(prepared, Channels):
            # Their segments are sorted at the end, so they have no checkpoints.
            return prepared.run(self.run, on_progress, on_segment)
        prepared.on_progress = on_progress
        try:
            return self._run(prepared, on_segment, on_checkpoint)
        except OutOfMemory:
            self._ran_out = self.device == "cuda"
            raise

    def _step(self, prepared: Prepared) -> None:
        """Ends a job's turn before a call of the weights; raises what ends the job."""
        prepared.report()
        if self._ran_out:
            self._clear_error(prepared)

    def _clear_error(self, prepared: Prepared) -> None:
        """Fetches the error of another job's failed allocation, which CUDA reports at the next
        call: it must not fail this one. Raises Poisoned if the GPU is broken."""
        with contextlib.suppress(OutOfMemory), prepared.translate_engine_errors():
            self.warm()
        self._ran_out = False

    def _run(
        self, prepared: Prepared, on_segment: OnSegment, on_checkpoint: OnCheckpoint
    ) -> Transcription:
        segments: list[Segment] = []

        # Without the model: a cycle would keep minutes of audio until the collector runs.
        def on_window(
            tokens: list[int], language: tuple[str, float] | None, last_speech: float
        ) -> None:
            state = prepared.checkpoint(len(segments), tokens, language, last_speech)
            prepared.call(on_checkpoint, state)

        model = self._job_model(prepared, on_window)
        detects = prepared.options.task == "detect"
        with prepared.translate_engine_errors():
            if isinstance(model, JobModel) and detects:
                # Whisper has no prompt for this task.
                model.find_language(prepared.first_frame, **detection(prepared.options))
            else:
                with contextlib.closing(model.segments(prepared.arguments)) as found:
                    for item, spoken in found:
                        segments.append(replace(prepared.to_segment(item), language=spoken))
                        prepared.call(on_segment, segments[-1])
            prepared.read_rest()
        text = "".join(segment.text for segment in segments).strip()
        before = prepared.resume is not None and prepared.resume.segments > 0
        if prepared.absurd or (model.asked and not text and not detects and not before):
            self._doubt(prepared)
        language, probability = prepared.language(model.language)
        return Transcription(
            text=text,
            language=language,
            language_probability=finite(probability),
            audio_seconds=prepared.recording.seconds,
            segments=tuple(segments),
            warnings=tuple(prepared.warnings[:WARNINGS_MAX]),
        )

    def _job_model(self, prepared: Prepared, on_window: OnWindow) -> JobModel | BatchedModel:
        options, settings = prepared.options, self._settings
        on_step = partial(self._step, prepared)
        # An empty list allows all.
        allowed = options.languages or None
        if prepared.windows is not None and options.batch_size is not None:
            return BatchedModel(
                self._model,
                prepared.windows,
                options.batch_size,
                windows_at_once(
                    options.batch_size,
                    settings.batch_size_max,
                    options.beam_size or settings.beam_size,
                ),
                allowed,
                prepared.report_window,
                on_step,
                on_window,
                prepared.resume,
            )
        return JobModel(
            self._model,
            prepared.features,
            prepared.hints,
            allowed,
            short=options.window != "full",
            resume=prepared.resume,
            on_step=on_step,
            on_window=on_window,
        )

    def _doubt(self, prepared: Prepared) -> None:
        """Tests the model again after a suspicious answer. Raises Poisoned if it fails."""
        if self._self_test is None or not (prepared.absurd or _has_speech(prepared)):
            return
        kind = "an absurd probability" if prepared.absurd else "no text for audible speech"
        log.warning("the answer is suspicious (%s): the model is tested", kind)
        with prepared.translate_engine_errors():
            problem = self._self_test.problem()
        if problem is not None:
            raise Poisoned(self._wrong(problem), self_test=True)

    def check(self) -> None:
        """Tests the model, unless the settings say otherwise. Raises LoadError if it fails."""
        if self._self_test is None:
            return
        quick = self.device == "cpu" and self._aligns
        problem = self._self_test.problem(quick)
        if problem is not None:
            raise LoadError(
                f"{self._wrong(problem)}; if this model was never trained on such speech, "
                "self_test = false lets it through",
                self_test=True,
            )

    def _wrong(self, problem: str) -> str:
        driver = f", driver {cuda.driver_version()}" if self.device == "cuda" else ""
        where = f"{self.device} ({self.compute_type}{driver})"
        return f"the model gives wrong text on {where}: {problem}"

    def warm(self) -> None:
        """Loads kernels and buffers that are otherwise loaded at first use.

        A GPU gets a whole window and both ways to decode it, which shows at once if its memory is
        too small. A CPU gets the least that goes through all layers once: more of a large model
        takes a fifth of the time that loading takes, and each recovery would wait for it. The
        self-test does that, too.
        """
        model, tokenizer = self._model.model, self._model.hf_tokenizer
        on_gpu = self.device == "cuda"
        frames = 3000 if on_gpu else 2
        window = self._model.encode(np.zeros((model.n_mels, frames), np.float32))
        names = ["<|startoftranscript|>"]
        if self.translate:
            names += [f"<|{self.languages[0]}|>", "<|transcribe|>"]
        prompt = [tokenizer.token_to_id(name) for name in names]
        if on_gpu:
            for how in {"beam_size": self._settings.beam_size}, {"sampling_temperature": 0.2}:
                model.generate(window, [prompt], max_length=16, return_no_speech_prob=True, **how)
        elif not self._aligns:
            model.generate(window, [prompt], max_length=len(prompt) + 1)
        if self._aligns:
            model.align(window, prompt, [[0]], frames)


def _vad(options: Options) -> Vad:
    """Returns the VAD with its options. Raises InternalError."""
    given = {} if options.vad_parameters is None else dump(options.vad_parameters)
    if is_batched(options):
        return Vad(_vad_session(), vad_options(given, options.chunk_length))
    return Vad(_vad_session(), VadOptions(**given))


def _vad_session() -> Any:
    """Returns the Silero model's session, which faster-whisper keeps. Raises InternalError.

    Loaded at first use, unless the settings ask for it: onnxruntime takes longer to import than a
    small model to load, and most recoveries need not wait for it.
    """
    try:
        return get_vad_model().session
    except MemoryError:
        raise
    except Exception as error:
        raise InternalError(f"the VAD can't be loaded: {error}") from error


def _has_speech(prepared: Prepared) -> bool:
    """Without a VAD every recording may be speech."""
    try:
        session = _vad_session()
    except InternalError:
        return True
    return prepared.has_speech(session)


def load_engine(settings: WorkerSettings, weights: Weights | None = None) -> WhisperEngine:
    """Loads and warms the model in the settings; `weights` are its weights, if they are being
    loaded already.

    Raises LoadError: one sentence that says what to fix.
    """
    started = time.monotonic()
    weights = weights or Weights(settings, *models.find(settings))
    with weights.loading():
        engine = WhisperEngine(_Model(weights), settings, weights.facts)
        if engine.device == "cuda" or not settings.self_test:
            engine.warm()
        engine.check()
        if settings.vad_filter:
            _vad_session()
    engine.load_seconds = time.monotonic() - started
    return engine


class _Model(WhisperModel):  # type: ignore[misc]
    """faster-whisper's model, around weights that a thread loads.

    Has the attributes that WhisperModel.__init__ sets, which would load the weights first and by
    itself; a test compares them.
    """

    def __init__(self, weights: Weights) -> None:
        path = str(weights.path)
        self.logger = get_logger()
        self.hf_tokenizer = tokenizers.Tokenizer.from_file(str(weights.path / "tokenizer.json"))
        self.feat_kwargs = self._get_feature_kwargs(path)
        self.feature_extractor = FeatureExtractor(**self.feat_kwargs)
        self.input_stride = 2
        self.num_samples_per_token = self.feature_extractor.hop_length * self.input_stride
        rate = self.feature_extractor.sampling_rate
        self.frames_per_second = rate // self.feature_extractor.hop_length
        self.tokens_per_second = rate // self.num_samples_per_token
        self.time_precision = 0.02
        self.max_length = 448
        self.model = weights.wait()
