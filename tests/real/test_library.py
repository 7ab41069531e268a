"""Transcripts of the daemon are those of faster-whisper in the caller's process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asrd.engine.audio.reader import RATE, Samples
from tests.support.real.speech import Clip, joined, sentences, word_error_rate
from tests.support.real.ways import Library, RealDaemon

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("clips")]

Libraries = dict[str, Library]


@pytest.fixture(scope="module")
def five_minutes() -> tuple[Samples, str]:
    """A recording joined from all sentences, and its text."""
    return joined(sentences(), 300)


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_sentences_have_the_same_texts(daemon: RealDaemon, libraries: Libraries, name: str) -> None:
    pairs = []
    for clip in sentences():
        found = daemon.transcribe(clip.path, name, language="en")
        wanted = libraries[name].transcribe(clip.path, language="en")
        assert (clip.path.name, found.text) == (clip.path.name, wanted.text)
        assert [segment.start for segment in found.segments] == pytest.approx(wanted.starts)
        pairs.append((clip.known_text, found.text))
    assert word_error_rate(pairs) <= 0.15


def test_languages_are_detected(
    daemon: RealDaemon, libraries: Libraries, clips: dict[str, Clip]
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
        wanted = libraries["base"].transcribe(audio)
        assert found.language == wanted.language == language
        assert found.language_probability == pytest.approx(wanted.probability, abs=0.01)
        assert found.text == wanted.text


@pytest.mark.parametrize("options", [{}, {"condition_on_previous_text": False}], ids=str)
def test_five_minutes_have_the_same_text(
    daemon: RealDaemon,
    libraries: Libraries,
    five_minutes: tuple[Samples, str],
    options: dict[str, Any],
) -> None:
    audio, _ = five_minutes
    found = daemon.transcribe(audio, "tiny.en", beam_size=1, **options)
    assert found.text == libraries["tiny.en"].transcribe(audio, beam_size=1, **options).text


def test_five_minutes_without_silence_have_as_few_errors(
    daemon: RealDaemon, libraries: Libraries, five_minutes: tuple[Samples, str]
) -> None:
    """asrd looks for speech while it reads, so that its windows begin at other places."""
    audio, said = five_minutes
    options: dict[str, Any] = {"vad_filter": True, "condition_on_previous_text": False}
    found = daemon.transcribe(audio, "base", language="en", beam_size=1, **options)
    wanted = libraries["base"].transcribe(audio, language="en", beam_size=1, **options)
    rate, library = (word_error_rate([(said, text)]) for text in (found.text, wanted.text))
    assert rate <= library + 0.005
    assert found.segments[-1].end <= len(audio) / RATE


@pytest.mark.parametrize("name", ["tiny.en", "base"])
@pytest.mark.parametrize("kind", ["white noise", "hum", "silence", "clicks"])
def test_recording_without_speech_has_no_other_text(
    daemon: RealDaemon, libraries: Libraries, kind: str, name: str
) -> None:
    """Whisper invents text for noise; asrd adds none, and leaves silence empty."""
    audio = without_speech(kind)
    found = daemon.transcribe(audio, name, language="en", beam_size=1)
    if found.text:
        wanted = libraries[name].transcribe(audio, language="en", beam_size=1)
        assert found.text == wanted.text
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
