"""Batches have the text and the times of faster-whisper's batched pipeline."""

from typing import Any

import pytest

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.whisper import WhisperEngine
from tests.support.engine_jobs import Listener, transcribe
from tests.support.real.library import ALIKE, cues, library
from tests.support.real.speech import Clip, joined, sentences

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("clips")]


@pytest.fixture(scope="module")
def recording() -> Samples:
    return joined(sentences(), 150)[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"without_timestamps": False},
        {"word_timestamps": True, "chunk_length": 20},
    ],
)
def test_text_and_times_are_those_of_faster_whisper(
    tiny_en: WhisperEngine, recording: Samples, options: dict[str, Any]
) -> None:
    audio = recording[: (90 if options else 120) * RATE]
    theirs, _ = library(tiny_en, audio, True, vad_filter=True, batch_size=3, **options)
    listener = Listener()
    ours = transcribe(tiny_en, audio, ALIKE, listener, batch_size=3, **options)
    assert len(theirs) > 3
    assert cues(ours.segments) == cues(theirs)
    assert [each.id for each in ours.segments] == [each.id for each in theirs]
    assert tuple(listener.segments) == ours.segments
    assert ours.audio_seconds == len(audio) / RATE
    if "word_timestamps" in options:
        words = [(w.word, w.start) for each in ours.segments for w in each.words or ()]
        assert words == [(w.word, round(w.start, 3)) for each in theirs for w in each.words or ()]


def test_large_batch_has_the_same_text_in_several_calls(
    tiny_en: WhisperEngine, recording: Samples
) -> None:
    options: dict[str, Any] = {"batch_size": 64, "chunk_length": 8}
    theirs, _ = library(tiny_en, recording, True, vad_filter=True, **options)
    ours = transcribe(tiny_en, recording, ALIKE, **options)
    assert len(theirs) > 2 * tiny_en._settings.batch_size_max
    assert cues(ours.segments) == cues(theirs)


def test_language_is_detected_as_in_faster_whisper(
    base: WhisperEngine, clips: dict[str, Clip]
) -> None:
    audio = clips["multilingual.mp3"].audio
    theirs, info = library(base, audio, True, vad_filter=True, batch_size=2)
    ours = transcribe(base, audio, ALIKE, batch_size=2)
    assert ours.language == info.language
    assert ours.language_probability == pytest.approx(info.language_probability, abs=1e-3)
    assert cues(ours.segments) == cues(theirs)
