"""Options that exclude each other.

A request that asks for both gets an error. But a server's default never makes a request fail: what
the request asks for wins, and the default is left out.
"""

import math
from dataclasses import fields, replace

from asrd.errors import BadRequest
from asrd.wire.options import EngineOptions, Options, VadParameters

WINDOW_SECONDS = 30
_PADDING = "vad_parameters.speech_pad_ms: half of the longest speech or more"
_NONE = VadParameters()
# Options of a single window at a time, which faster-whisper's batched way ignores; hints, whose
# effect asrd checks window by window (asrd.engine.hints).
_UNBATCHED = (
    "clip_timestamps",
    "prefix",
    "hotwords",
    "initial_prompt",
    "best_of",
    "compression_ratio_threshold",
    "log_prob_threshold",
    "no_speech_threshold",
    "hallucination_silence_threshold",
    "prompt_reset_on_temperature",
    "max_initial_timestamp",
)
# The options of the tasks without text. All others are about text.
_OF_SPEECH = {"task", "vad_filter", "vad_parameters", "audio_track", "require_complete"}
_OF_SPEAKERS = {"task", "num_speakers", "audio_track", "require_complete"}


def settle(asked: Options, merged: Options) -> Options:
    """Returns `merged`, the request's options over the server's defaults, without contradictions.

    Raises BadRequest naming the field, if the request itself (`asked`) contradicts itself.
    """
    if asked.task == "speech":
        return _settle_speech(asked, merged)
    if asked.num_speakers is not None:
        raise BadRequest("num_speakers: has an effect only with task speakers")
    settled = merged
    if asked.task == "detect":
        if asked.language:
            raise BadRequest("language: must be absent with task detect")
        settled = replace(settled, language=None, batch_size=None)
    if is_batched(settled):
        own, vad = asked.vad_parameters, settled.vad_parameters
        if vad and _pads_too_much(settled) and (own is None or own.speech_pad_ms is None):
            settled = replace(settled, vad_parameters=replace(vad, speech_pad_ms=None))
        against = _unbatched(asked) or (_PADDING if _pads_too_much(settled) else None)
        if against is None:
            settled = replace(settled, vad_filter=True)
        elif is_batched(asked):
            raise BadRequest(f"{against}: is not possible with batch_size")
        else:
            settled = replace(settled, batch_size=None)
    if settled.clip_timestamps is not None:
        _check_clips(settled.clip_timestamps)
        if asked.vad_filter:
            raise BadRequest("clip_timestamps: is not possible with vad_filter")
        settled = replace(settled, vad_filter=False)
    if asked.vad_parameters is not None and not settled.vad_filter:
        raise BadRequest("vad_parameters: has an effect only with vad_filter")
    return settled


def settle_speakers(asked: Options) -> Options:
    """Returns the options of a job for a worker that tells speakers apart. Raises BadRequest."""
    if asked.task != "speakers":
        raise BadRequest(f"task: {asked.task}: this worker does nothing but speakers")
    _refuse_others(asked, _OF_SPEAKERS)
    return asked


def _refuse_others(asked: Options, possible: set[str]) -> None:
    for spec in fields(Options):
        value = getattr(asked, spec.name)
        # An explicit false asks for nothing.
        if spec.name not in possible and value not in (None, "") and value is not False:
            raise BadRequest(f"{spec.name}: has no effect with task {asked.task}")


def _settle_speech(asked: Options, merged: Options) -> Options:
    _refuse_others(asked, _OF_SPEECH)
    if asked.vad_filter is False:
        raise BadRequest("vad_filter: false: is not possible with task speech")
    return replace(merged, language=None, vad_filter=True, batch_size=None)


def check_settings(settings: EngineOptions) -> None:
    """Raises BadRequest for settings with which no request could be served."""
    if is_batched(settings) and _pads_too_much(settings):
        raise BadRequest(f"{_PADDING}: is not possible with batch_size")


def _pads_too_much(options: EngineOptions) -> bool:
    """True if speech with its padding may be longer than a window of a batch."""
    vad = options.vad_parameters or _NONE
    longest = min(options.chunk_length or WINDOW_SECONDS, vad.max_speech_duration_s or math.inf)
    return 2 * (vad.speech_pad_ms or 0) >= 1000 * longest


def is_batched(options: EngineOptions) -> bool:
    return (options.batch_size or 1) > 1


def _unbatched(asked: Options) -> str | None:
    """Returns the first option that was asked for and is not possible in batches."""
    for name in _UNBATCHED:
        if getattr(asked, name) not in (None, ""):
            return name
    if asked.condition_on_previous_text:
        return "condition_on_previous_text: true"
    if isinstance(asked.temperature, tuple) and len(asked.temperature) > 1:
        return "temperature: more than one"
    if asked.vad_filter is False:
        return "vad_filter: false"
    return "window: short" if asked.window == "short" else None


def _check_clips(clips: tuple[float, ...]) -> None:
    """Raises BadRequest unless the clips are in order, and each ends after it starts."""
    if not clips:
        raise BadRequest("clip_timestamps: the list is empty")
    for i in range(1, len(clips)):
        before, here = clips[i - 1 : i + 1]
        if here < before or (i % 2 and here == before):
            raise BadRequest(
                f"clip_timestamps[{i}]: {here:g} must be after {before:g}, the "
                + ("start of its clip" if i % 2 else "end of the clip before")
            )
