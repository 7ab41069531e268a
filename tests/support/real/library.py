"""faster-whisper itself, on the weights of an engine in this process."""

from typing import Any

from faster_whisper import BatchedInferencePipeline
from faster_whisper.transcribe import Segment, TranscriptionInfo

from asrd.engine.audio.reader import Samples
from asrd.engine.whisper import WhisperEngine
from asrd.wire.options import Options
from asrd.wire.records import Segment as Found
from tests.support.exact import make_exact

# What both are asked for: the other temperatures are sampled at random. A full window is the
# library's.
ALIKE = Options(temperature=0.0, window="full")


def library(
    engine: WhisperEngine, audio: Samples, batched: bool = False, **options: Any
) -> tuple[list[Segment], TranscriptionInfo]:
    """Returns the library's segments and facts. Both it and the engine get the same features from
    now on, to the last bit, which may decide a word (tests.support.exact)."""
    model = engine._model
    make_exact(model.feature_extractor)
    pipeline = BatchedInferencePipeline(model) if batched else model
    segments, info = pipeline.transcribe(audio, temperature=0.0, **options)
    return list(segments), info


def cues(segments: list[Segment] | tuple[Found, ...]) -> list[tuple[str, float, float]]:
    """Returns text, start and end of each segment."""
    return [(each.text, round(each.start, 2), round(each.end, 2)) for each in segments]
