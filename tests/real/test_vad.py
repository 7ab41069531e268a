"""With any VAD options, speech and text are those of faster-whisper."""

from typing import Any

import numpy as np
import pytest
from faster_whisper.vad import VadOptions, get_speech_timestamps, get_vad_model

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.vad import SpeechFilter, Vad
from asrd.engine.whisper import WhisperEngine
from asrd.errors import BadRequest
from asrd.wire.options import VadParameters
from tests.support.engine_jobs import transcribe
from tests.support.real.library import ALIKE, cues, library
from tests.support.real.speech import joined, sentences
from tests.support.sounds import blocks

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("clips")]

WAYS: list[dict[str, Any]] = [
    {},
    {"min_silence_duration_ms": 160, "max_speech_duration_s": 30},
    {"max_speech_duration_s": 2, "speech_pad_ms": 100},
    {"threshold": 0.8, "neg_threshold": 0.7, "min_silence_duration_ms": 30, "speech_pad_ms": 0},
    {"min_speech_duration_ms": 1500, "min_silence_duration_ms": 300, "speech_pad_ms": 200},
]


@pytest.fixture(scope="module")
def minute() -> Samples:
    return joined(sentences(), 60, pause=0.8)[0]


@pytest.mark.parametrize("way", WAYS)
def test_chunks_are_those_of_faster_whisper(minute: Samples, way: dict[str, Any]) -> None:
    options = VadOptions(**way)
    chunks = get_speech_timestamps(minute, options)
    found = SpeechFilter(blocks(minute, 10 * RATE), Vad(get_vad_model().session, options))
    expected = [minute[chunk["start"] : chunk["end"]] for chunk in chunks]
    assert len(chunks) > 3 or not way
    assert np.array_equal(np.concatenate([*found]), np.concatenate(expected))


@pytest.mark.parametrize("way", WAYS[2:])
def test_text_and_times_are_those_of_faster_whisper(
    tiny_en: WhisperEngine, minute: Samples, way: dict[str, Any]
) -> None:
    theirs, _ = library(tiny_en, minute, vad_filter=True, vad_parameters=way)
    ours = transcribe(tiny_en, minute, ALIKE, vad_filter=True, vad_parameters=VadParameters(**way))
    assert cues(ours.segments) == cues(theirs)
    assert ours.audio_seconds == len(minute) / RATE


def test_parameters_without_the_filter_are_an_error(tiny_en: WhisperEngine) -> None:
    with pytest.raises(BadRequest, match="vad_parameters: has an effect only with vad_filter"):
        transcribe(tiny_en, np.zeros(RATE, np.float32), ALIKE, vad_parameters=VadParameters())
