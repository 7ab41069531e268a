"""The options of a job, completed by the settings, checked against the model, and as arguments of
faster-whisper.

An option that neither the request nor the settings have is no argument: faster-whisper's own
default applies.
"""

from dataclasses import fields, replace
from typing import Any, TypeVar

from faster_whisper.tokenizer import Tokenizer

from asrd.engine.combinations import check_settings, settle
from asrd.engine.model_check import Facts
from asrd.errors import BadRequest, InternalError
from asrd.settings import WorkerSettings
from asrd.wire.options import Options, VadParameters
from asrd.wire.records import Checkpoint

T = TypeVar("T", Options, VadParameters)

# faster-whisper cuts a longer prefix, and more would leave too little room for the text.
PREFIX_TOKENS = 223
# 0 to 30 s in steps of 20 ms.
_TIMESTAMPS = 1501
# CTranslate2 divides by it: a quotient that overflows, in half precision soon, gives "!!!!!!".
_LOWEST_TEMPERATURE = 0.01
# Options that faster-whisper takes as they are; what it does with the others is asrd's own.
_PASSED = (
    "language",
    "task",
    "beam_size",
    "patience",
    "best_of",
    "length_penalty",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "temperature",
    "compression_ratio_threshold",
    "log_prob_threshold",
    "no_speech_threshold",
    "hallucination_silence_threshold",
    "condition_on_previous_text",
    "prompt_reset_on_temperature",
    "suppress_blank",
    "without_timestamps",
    "max_initial_timestamp",
    "prepend_punctuations",
    "append_punctuations",
    "max_new_tokens",
    "chunk_length",
    "word_timestamps",
    "multilingual",
    "clip_timestamps",
)
# Also those of `detect_language`.
_DETECTION = ("language_detection_threshold", "language_detection_segments")
# Without word_timestamps, faster-whisper ignores these.
_FOR_WORDS = ("hallucination_silence_threshold", "prepend_punctuations", "append_punctuations")


def completed(options: T, defaults: object) -> T:
    """Returns the options with those of the settings in place of absent ones, also within
    `vad_parameters`."""
    changes: dict[str, Any] = {}
    for spec in fields(options):
        own, default = getattr(options, spec.name), getattr(defaults, spec.name, None)
        if own is None:
            # The settings have an empty text for a language that is detected.
            changes[spec.name] = None if default == "" and spec.name == "language" else default
        elif isinstance(own, VadParameters) and default is not None:
            changes[spec.name] = completed(own, default)
    return replace(options, **changes)


class Arguments:
    """Makes the arguments for one model."""

    def __init__(self, hf_tokenizer: Any, settings: WorkerSettings, facts: Facts) -> None:
        """Raises BadRequest for settings that the model can't follow."""
        self._settings = settings
        self._facts = facts
        self._hf_tokenizer = hf_tokenizer
        tokenizer = Tokenizer(hf_tokenizer, multilingual=False)
        # Looked up once: faster-whisper's default, [-1], has them looked up for every job.
        self._symbols = tokenizer.non_speech_tokens
        self._eot = tokenizer.eot
        self._first_timestamp = tokenizer.timestamp_begin
        self._check(completed(Options(), settings))
        check_settings(settings)

    def merged(self, options: Options) -> Options:
        """Returns the job's options. Raises BadRequest naming the field that contradicts another or
        can't be followed."""
        if not options.word_timestamps:
            for name in _FOR_WORDS:
                if getattr(options, name) is not None:
                    raise BadRequest(f"{name}: has no effect without word_timestamps")
        job = completed(options, self._settings)
        if options.patience is None and job.patience is not None:
            # The settings' patience may be for more beams than the request has.
            job = replace(job, patience=max(job.patience, 1 / (job.beam_size or 1)))
        job = settle(options, job)
        self._check(job)
        return job

    def _check(self, job: Options) -> None:
        facts = self._facts
        if job.language is not None and job.language not in facts.languages:
            known = ", ".join(facts.languages[:3]) + (", …" if len(facts.languages) > 3 else "")
            raise BadRequest(f"language: this model does not know {job.language!r} (only {known})")
        for i, code in enumerate(job.languages or ()):
            if code not in facts.languages:
                raise BadRequest(f"languages[{i}]: this model does not know {code!r}")
        if job.task == "translate" and not facts.multilingual:
            raise BadRequest("task: an English-only model can't translate")
        if job.multilingual and not facts.multilingual:
            raise BadRequest("multilingual: this is an English-only model")
        if job.word_timestamps and not facts.word_timestamps:
            raise BadRequest("word_timestamps: this model has no alignment_heads")
        if job.temperature == ():
            raise BadRequest("temperature: the list is empty")
        values = job.temperature if isinstance(job.temperature, tuple) else (job.temperature or 0,)
        if any(0 < value < _LOWEST_TEMPERATURE for value in values):
            raise BadRequest(f"temperature: must be 0, or at least {_LOWEST_TEMPERATURE:g}")
        if job.patience is not None and job.patience * (job.beam_size or 1) < 1:
            raise BadRequest("patience: must be at least 1 / beam_size")
        # CTranslate2 does not check them: one beyond the vocabulary damages other memory.
        if max(job.suppress_tokens or (), default=0) >= self._first_timestamp:
            raise BadRequest(
                f"suppress_tokens: this model's tokens end at {self._first_timestamp - 1}"
            )
        prefix = self.encode(f" {(job.prefix or '').strip()}")
        if len(prefix) > PREFIX_TOKENS:
            raise BadRequest(f"prefix: has {len(prefix)} tokens, the most are {PREFIX_TOKENS}")
        if max(prefix, default=0) >= self._eot:
            raise BadRequest("prefix: contains one of Whisper's special tokens, such as <|en|>")

    def resumed(self, options: Options, resume: Checkpoint) -> Options:
        """Returns the options with which a job goes on: those that it began with.

        Raises BadRequest like `merged`, and InternalError for a checkpoint that no attempt with
        this model has made.
        """
        if resume.language not in (None, *self._facts.languages):
            raise InternalError(f"resume.language: this model does not know {resume.language!r}")
        end = self._first_timestamp + _TIMESTAMPS
        # One beyond the vocabulary damages other memory.
        if max(resume.tokens, default=0) >= end:
            raise InternalError(f"resume.tokens: this model's tokens end at {end - 1}")
        job = resume.options or self.merged(options)
        self._check(job)
        return job

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = self._hf_tokenizer.encode(text, add_special_tokens=False).ids
        return tokens

    def of(self, job: Options) -> dict[str, Any]:
        """Returns the arguments for options that `merged` returned."""
        given = (-1,) if job.suppress_tokens is None else job.suppress_tokens
        # A new list for each job: faster-whisper extends it.
        suppressed = [token for token in given if token >= 0]
        return {
            **_given(job, _PASSED + _DETECTION),
            "suppress_tokens": suppressed + (list(self._symbols) if -1 in given else []),
            "prefix": (job.prefix or "").strip() or None,
        }


def detection(job: Options) -> dict[str, Any]:
    """Returns the arguments of faster-whisper's `detect_language`."""
    return _given(job, _DETECTION)


def _given(job: Options, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(job, name)) is not None}
