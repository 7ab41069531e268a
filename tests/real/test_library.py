"""Transcripts of the daemon are those of faster-whisper in the caller's process."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.whisper import WhisperEngine
from tests.support.real.daemon import RealDaemon
from tests.support.real.library import cues, library, text
from tests.support.real.speech import Clip, joined, sentences, word_error_rate

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("clips")]

Engines = dict[str, WhisperEngine]


def starts(segments: Any, seconds: float = math.inf) -> list[tuple[str, float]]:
    """Returns text and start of each segment; the library's last may be after the recording."""
    return [(words, min(start, round(seconds, 2))) for words, start, _ in cues(segments)]


@pytest.mark.parametrize(("name", "beam_size", "every"), [("tiny.en", 1, 1), ("base", 5, 4)])
def test_sentences_have_the_same_texts(
    daemon: RealDaemon, engines: Engines, name: str, beam_size: int, every: int
) -> None:
    pairs = []
    for clip in sentences()[::every]:
        options: dict[str, Any] = {"language": "en", "beam_size": beam_size}
        found = daemon.transcribe(clip.path, name, **options)
        theirs, _ = library(engines[name], clip.path, **options)
        assert (clip.path.name, starts(found.segments)) == (clip.path.name, starts(theirs))
        pairs.append((clip.known_text, found.text))
    assert word_error_rate(pairs) <= 0.15


def test_languages_are_detected(
    daemon: RealDaemon, base: WhisperEngine, clips: dict[str, Clip]
) -> None:
    # Its second half is German.
    german = clips["multilingual.mp3"].audio[30 * RATE : 40 * RATE]
    recordings: dict[str, Path | Samples] = {
        "en": clips["cards-005.wav"].path,
        "fr": clips["french.aiff"].path,
        "de": german,
    }
    for language, audio in recordings.items():
        found = daemon.transcribe(audio)
        theirs, info = library(base, audio)
        assert found.language == info.language == language
        # asrd leaves out the frame of padding at the end, so that it encodes the window only once.
        assert found.language_probability == pytest.approx(info.language_probability, abs=0.03)
        assert found.text == text(theirs)


@pytest.mark.parametrize(
    ("name", "seconds", "options"),
    [
        ("tiny.en", 300, {}),
        ("tiny.en", 300, {"vad_filter": True, "condition_on_previous_text": False}),
        # With the text before as a prompt, both repeat themselves at one temperature.
        ("base", 120, {"vad_filter": True, "condition_on_previous_text": False}),
    ],
    ids=str,
)
def test_minutes_have_the_same_text(
    daemon: RealDaemon, engines: Engines, name: str, seconds: int, options: dict[str, Any]
) -> None:
    """With the VAD, too, although asrd looks for speech and for the loudest place as it reads."""
    audio, said = joined(sentences(), seconds)
    found = daemon.transcribe(audio, name, language="en", **options)
    theirs, _ = library(engines[name], audio, language="en", **options)
    assert starts(found.segments) == starts(theirs, len(audio) / RATE)
    assert word_error_rate([(said, found.text)]) <= 0.1


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("white noise", "tiny.en"),
        ("hum", "tiny.en"),
        ("silence", "tiny.en"),
        ("clicks", "tiny.en"),
        ("white noise", "base"),
    ],
)
def test_recording_without_speech_has_no_other_text(
    daemon: RealDaemon, engines: Engines, kind: str, name: str
) -> None:
    """Whisper invents text for noise; asrd adds none, and leaves silence empty."""
    audio = without_speech(kind)
    found = daemon.transcribe(audio, name, language="en")
    if found.text:
        assert found.text == text(library(engines[name], audio, language="en")[0])
    assert all(0 <= each.start <= each.end <= 8 for each in found.segments)


def without_speech(kind: str) -> Samples:
    """Returns 8 s."""
    chance, time = np.random.default_rng(0), np.arange(8 * RATE) / RATE
    samples = {
        "white noise": 0.1 * chance.standard_normal(len(time)),
        "hum": 0.2 * np.sin(2 * np.pi * 50 * time),
        "silence": 0 * time,
        "clicks": 0.9 * (chance.random(len(time)) < 1e-4),
    }
    return samples[kind].astype(np.float32)
