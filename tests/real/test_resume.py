"""A job goes on from any window, on another worker, with the segments of an undisturbed one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.interface import Transcription
from asrd.engine.whisper import WhisperEngine
from tests.support.engine_jobs import (
    Listener,
    assert_resumable,
    run_in_turns,
    transcribe,
    watched,
)
from tests.support.real.library import ALIKE
from tests.support.real.speech import Clip, joined, sentences
from tests.support.sounds import noise

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("clips")]

# As clients ask for it: windows with little speech are encoded shorter.
JOB = replace(ALIKE, language="en", window=None)


@pytest.fixture(scope="module")
def recording() -> Samples:
    """80 seconds of people, and a pause of several seconds after the first half minute."""
    audio = joined(sentences(), 80)[0]
    return np.concatenate((audio[: 31 * RATE], np.zeros(7 * RATE, np.float32), audio[31 * RATE :]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"condition_on_previous_text": False},
        {"word_timestamps": True},
        {"vad_filter": True},
        {"initial_prompt": "A talk about ships, and Mr Quilter.", "hotwords": "Quilter, Leighton"},
        {"clip_timestamps": (5.0, 33.0, 40.0, 70.5)},
        {"batch_size": 2, "chunk_length": 15, "word_timestamps": True},
        {"word_timestamps": True, "hallucination_silence_threshold": 1.0},
    ],
    ids=str,
)
def test_attempt_from_a_checkpoint_gives_the_rest(
    tiny_en: WhisperEngine, recording: Samples, options: dict[str, Any]
) -> None:
    assert_resumable(tiny_en, recording, 2, replace(JOB, **options))


def test_language_of_each_window_stays(base: WhisperEngine, clips: dict[str, Clip]) -> None:
    english = clips["jfk.flac"].audio
    parts = (english, clips["french.aiff"].audio, clips["multilingual.mp3"].audio)
    options = replace(JOB, language=None, multilingual=True)
    whole = assert_resumable(base, np.concatenate(parts), 2, options)
    assert len({each.language for each in whole.segments}) > 1


def test_jobs_in_turns_have_the_texts_that_each_has_alone(
    tiny_en: WhisperEngine, recording: Samples, clips: dict[str, Clip]
) -> None:
    jobs: list[tuple[Samples, dict[str, Any]]] = [
        (recording[: 45 * RATE], {"word_timestamps": True}),
        (clips["jfk.flac"].audio, {"hotwords": "fellow Americans"}),
    ]

    def job(number: int, listener: Listener | None = None) -> Transcription:
        audio, options = jobs[number]
        return transcribe(tiny_en, audio, JOB, listener, **options)

    assert run_in_turns(job) == [job(0), job(1)]


def test_noise_that_takes_six_temperatures_gives_turns_between_them(tiny_en: WhisperEngine) -> None:
    """Other jobs and a cancellation wait for one text, not for all six."""
    events: list[str] = []

    class Turns(Listener):
        def on_progress(self, done: float, total: float | None) -> None:
            events.append("turn")

    # No text is probable enough, and none is taken for silence.
    doubtful: Any = {"temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), "log_prob_threshold": 0.0}
    doubtful |= {"no_speech_threshold": 1.0, "window": "full", "max_new_tokens": 40}
    transcribe(watched(tiny_en, events.append), noise(25, 0.1), JOB, Turns(), **doubtful)
    first = events.index("encode")
    assert events[first:][:13] == ["encode", *["turn", "generate"] * 6]
