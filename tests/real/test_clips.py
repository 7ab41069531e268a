"""Jumps in a recording, to clips and over silence, give the text that faster-whisper finds."""

from typing import Any

import numpy as np
import pytest

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.whisper import WhisperEngine
from tests.support.engine_jobs import transcribe
from tests.support.real.library import ALIKE, cues, library
from tests.support.real.speech import Clip, joined, sentences

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("clips")]


@pytest.fixture(scope="module")
def recording() -> Samples:
    return joined(sentences(), 100)[0]


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([3.21, 9.5], True),
        ([0, 12, 12, 15.5, 40, 75, 80.01], False),
        ([0, 12, 12, 15.5, 40, 75, 80.01], True),
        ([70], False),
        # Past the end: the end of a clip, then a whole clip.
        ([85, 400], True),
        ([20, 25, 400, 500, 600], False),
    ],
)
def test_text_and_times_are_those_of_faster_whisper(
    tiny_en: WhisperEngine, recording: Samples, points: list[float], words: bool
) -> None:
    theirs, _ = library(tiny_en, recording, clip_timestamps=points, word_timestamps=words)
    ours = transcribe(
        tiny_en, recording, ALIKE, clip_timestamps=tuple(points), word_timestamps=words
    )
    assert theirs
    assert ours.audio_seconds == len(recording) / RATE
    # faster-whisper also gives times after the end.
    inside = [
        (text, start, min(end, round(ours.audio_seconds, 2))) for text, start, end in cues(theirs)
    ]
    assert cues(ours.segments) == inside


def test_silence_around_doubtful_text_is_skipped(
    tiny_en: WhisperEngine, recording: Samples
) -> None:
    """This option needs to know how far the end is."""
    noise = np.random.default_rng(0).normal(0, 0.02, 25 * RATE).astype(np.float32)
    audio = np.concatenate((recording[: 20 * RATE], noise, recording[: 9 * RATE], noise))
    options: dict[str, Any] = {"word_timestamps": True, "hallucination_silence_threshold": 1.0}
    theirs, _ = library(tiny_en, audio, **options)
    assert cues(theirs) != cues(library(tiny_en, audio, word_timestamps=True)[0])
    assert cues(transcribe(tiny_en, audio, ALIKE, **options).segments) == cues(theirs)


def test_language_is_that_of_the_first_clip(
    base: WhisperEngine, recording: Samples, clips: dict[str, Clip]
) -> None:
    french = clips["french.aiff"].audio
    audio = np.concatenate((recording[: 35 * RATE], french))
    found = transcribe(base, audio, ALIKE, clip_timestamps=(35.0,))
    assert found.language == "fr"
    assert "dictée" in found.text


def test_clip_past_the_end_has_no_text(tiny_en: WhisperEngine, recording: Samples) -> None:
    found = transcribe(tiny_en, recording[: 40 * RATE], ALIKE, clip_timestamps=(50.0, 60.0))
    assert (found.text, found.segments, found.audio_seconds) == ("", (), 40.0)
