"""faster-whisper itself, on the weights of an engine in this process."""

import copy
from pathlib import Path
from typing import Any

from faster_whisper import BatchedInferencePipeline
from faster_whisper.transcribe import Segment, TranscriptionInfo

from asrd.engine.audio.reader import Samples
from asrd.engine.whisper import WhisperEngine
from asrd.wire.options import Options
from asrd.wire.records import Segment as Found

# What both are asked for, unless a test says otherwise. The other temperatures are sampled at
# random; one beam takes a third of the time; a full window is the library's.
_ALIKE: dict[str, Any] = {"temperature": 0.0, "beam_size": 1}
JOB: dict[str, Any] = {**_ALIKE, "window": "full"}
ALIKE = Options(**JOB)


def library(
    engine: WhisperEngine, audio: Samples | Path, batched: bool = False, **options: Any
) -> tuple[list[Segment], TranscriptionInfo]:
    """Returns the library's segments and facts for samples of 16 kHz, or for a file."""
    model = copy.copy(engine._model)
    # faster-whisper changes it for `chunk_length`.
    model.feature_extractor = copy.copy(model.feature_extractor)
    pipeline = BatchedInferencePipeline(model) if batched else model
    given = str(audio) if isinstance(audio, Path) else audio
    segments, info = pipeline.transcribe(given, **{**_ALIKE, **options})
    return list(segments), info


def text(segments: list[Segment]) -> str:
    return "".join(each.text for each in segments).strip()


def cues(segments: list[Segment] | tuple[Found, ...]) -> list[tuple[str, float, float]]:
    """Returns text, start and end of each segment, with its words inside: faster-whisper lets some
    begin earlier or end later."""
    found = []
    for each in segments:
        cue = [each, *(each.words or ())]
        start, end = min(part.start for part in cue), max(part.end for part in cue)
        found.append((each.text, round(start, 2), round(end, 2)))
    return found
