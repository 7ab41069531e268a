"""The options of a job: faster-whisper's, within bounds, and asrd's own. Pure.

`EngineOptions` are both fields of a request and settings of a worker, which are the defaults of
requests without them. A field that neither has is left out of the call: faster-whisper's own
default applies.
"""

from dataclasses import dataclass, fields

from asrd.wire.fields import (
    choice,
    either,
    field,
    flag,
    identifier,
    integer,
    line,
    nested,
    number,
    sequence,
    string,
)
from asrd.wire.languages import language, one_language

# Whisper's prompt has 223 tokens: the engine cuts longer prompts.
PROMPT_MAX = 4096
SPEAKERS_MAX = 64
_DAY = 24 * 3600
_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class VadParameters:
    """The fields of faster-whisper's VadOptions; absent ones have its defaults."""

    threshold: float | None = field(number(0, 1), None, help="Speech begins at this probability.")
    neg_threshold: float | None = field(
        number(0, 1),
        None,
        help="Speech ends below this probability; by default threshold less 0.15.",
    )
    min_speech_duration_ms: int | None = field(
        integer(0, _MINUTE_MS), None, help="Shorter speech is left out."
    )
    max_speech_duration_s: float | None = field(
        number(1, 3600), None, help="Longer speech is cut, in a pause if there is one."
    )
    min_silence_duration_ms: int | None = field(
        integer(0, _MINUTE_MS), None, help="Shorter pauses belong to the speech."
    )
    speech_pad_ms: int | None = field(
        integer(0, _MINUTE_MS), None, help="Silence that is kept on both sides of speech."
    )


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of a request that are also settings of a worker. Help texts describe both."""

    beam_size: int | None = field(integer(1, 32), None, help="Beams at temperature 0.")
    patience: float | None = field(
        number(0.1, 10),
        None,
        help="A beam search ends after patience times beam_size complete texts.",
    )
    best_of: int | None = field(integer(1, 32), None, help="Candidates at a temperature above 0.")
    length_penalty: float | None = field(
        number(0, 10), None, help="Above 1 favours longer candidates, below 1 shorter ones."
    )
    repetition_penalty: float | None = field(
        number(0.1, 10), None, help="Above 1: tokens that occurred before become less probable."
    )
    no_repeat_ngram_size: int | None = field(
        integer(0, 32), None, help="No sequence of this many tokens occurs twice; 0: no limit."
    )
    temperature: float | tuple[float, ...] | None = field(
        either(number(0, 2), sequence(number(0, 2), 16), (list, tuple)),
        None,
        help="0: the most probable text; above: a random one. A list is tried in turn while a text "
        "looks wrong.",
    )
    compression_ratio_threshold: float | None = field(
        number(0, 1000),
        None,
        help="A text that compresses better repeats itself: the next temperature is tried.",
    )
    log_prob_threshold: float | None = field(
        number(-1000, 0),
        None,
        help="A text whose tokens are less probable on average: the next temperature is tried.",
    )
    no_speech_threshold: float | None = field(
        number(0, 1),
        None,
        help="A window with an improbable text is skipped if silence is more probable than this.",
    )
    hallucination_silence_threshold: float | None = field(
        number(0, 30),
        None,
        help="With word_timestamps: a doubtful text is dropped if longer silence surrounds it "
        "(seconds).",
    )
    condition_on_previous_text: bool | None = field(
        flag, None, help="Give the model the text before each window as context."
    )
    prompt_reset_on_temperature: float | None = field(
        number(0, 2), None, help="That context is dropped after a window above this temperature."
    )
    suppress_blank: bool | None = field(
        flag, None, help="No window begins with a blank or with no text."
    )
    suppress_tokens: tuple[int, ...] | None = field(
        sequence(integer(-1, 1 << 20), 256),
        None,
        help="Numbers of tokens that never occur; -1: the model's list of symbols.",
    )
    without_timestamps: bool | None = field(flag, None, help="Decode text only, without times.")
    max_initial_timestamp: float | None = field(
        number(0, 30), None, help="Latest start of a window's first text (seconds)."
    )
    prepend_punctuations: str | None = field(
        string(256), None, help="With word_timestamps: marks that belong to the next word."
    )
    append_punctuations: str | None = field(
        string(256), None, help="With word_timestamps: marks that belong to the word before."
    )
    max_new_tokens: int | None = field(
        integer(1, 448), None, help="The most tokens in a window's text."
    )
    chunk_length: int | None = field(
        integer(1, 30), None, help="The length of a window in seconds."
    )
    multilingual: bool | None = field(flag, None, help="Detect the language of each window.")
    languages: tuple[str, ...] | None = field(
        sequence(one_language, 100), None, help="The only languages that detection may choose."
    )
    language_detection_threshold: float | None = field(
        number(0, 1), None, help="A language more probable than this is chosen at once."
    )
    language_detection_segments: int | None = field(
        integer(1, 100), None, help="The most windows in which the language is detected."
    )
    vad_filter: bool | None = field(
        flag,
        None,
        help="Skip silence (Silero VAD): for recordings with long pauses or noise.",
    )
    vad_parameters: VadParameters | None = field(
        nested(VadParameters),
        None,
        table=VadParameters,
        help=f"With vad_filter: {', '.join(spec.name for spec in fields(VadParameters))}.",
    )
    batch_size: int | None = field(
        integer(1, 64),
        None,
        help="Above 1: decode this many windows at once, at most the worker's batch_size_max; "
        "faster, with more errors.",
    )
    window: str | None = field(
        choice("short", "full"),
        None,
        help="short (the default): a short recording, or the end of a long one, takes less time; "
        "full: each window takes that of 30 s, as in faster-whisper.",
    )


@dataclass(frozen=True, slots=True)
class Options(EngineOptions):
    """All options of a job.

    asrd's own: `task` may be `detect` (only the language), `speech` (only where there is speech: a
    segment without text for each stretch of it) or `speakers` (a segment without text for each turn
    of a speaker; `num_speakers`, if their number is known). `audio_track` chooses a file's audio
    track by number among the audio tracks (from 0) or by language (`ger`, `de`). With
    `require_complete`, an incomplete recording is `bad-audio` instead of a warning.
    `split_channels` transcribes each channel separately. With `include_tokens`, segments carry
    `seek` and `tokens`.
    """

    language: str | None = field(language, None)
    task: str = field(
        choice("transcribe", "translate", "detect", "speech", "speakers"), "transcribe"
    )
    initial_prompt: str | None = field(string(PROMPT_MAX), None)
    prefix: str | None = field(line(PROMPT_MAX), None)
    hotwords: str | None = field(string(PROMPT_MAX), None)
    clip_timestamps: tuple[float, ...] | None = field(sequence(number(0, 7 * _DAY), 1000), None)
    word_timestamps: bool | None = field(flag, None)
    include_tokens: bool | None = field(flag, None)
    audio_track: int | str | None = field(either(integer(0, 1000), identifier(16), (str,)), None)
    require_complete: bool | None = field(flag, None)
    split_channels: bool | None = field(flag, None)
    num_speakers: int | None = field(integer(1, SPEAKERS_MAX), None)
