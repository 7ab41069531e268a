"""Expectations of faster-whisper's own tests for its recordings, through the daemon with `base`."""

from itertools import pairwise

import pytest

from asrd.engine.whisper import WhisperEngine
from tests.support.real.daemon import RealDaemon
from tests.support.real.library import library, text
from tests.support.real.speech import Clip, joined, sentences, word_error_rate

pytestmark = pytest.mark.real

Clips = dict[str, Clip]

PARAMETERS = {"min_silence_duration_ms": 500, "speech_pad_ms": 200}
JFK = (
    "And so my fellow Americans, ask not what your country can do for you, "
    "ask what you can do for your country."
)
LEFT = (
    "He began a confused complaint against the wizard, who had vanished behind the curtain on the "
    "left."
)
RIGHT = "The horizon seems extremely distant."


def test_speech_of_a_person(daemon: RealDaemon, clips: Clips) -> None:
    found = daemon.transcribe(clips["jfk.flac"].path, word_timestamps=True)
    assert found.language == "en"
    assert found.language_probability is not None and found.language_probability > 0.9
    assert found.duration_ms == 11_000
    (segment,) = found.segments
    words = segment.words or ()
    # A comma may depend on how a processor rounds.
    assert word_error_rate([(JFK, found.text)]) == 0
    assert found.text == segment.text.strip()
    assert segment.text == "".join(word.word for word in words)
    assert (segment.start, segment.end) == (words[0].start, words[-1].end)


def test_silence_before_speech_is_skipped(daemon: RealDaemon, clips: Clips) -> None:
    found = daemon.transcribe(clips["jfk.flac"].path, vad_filter=True, vad_parameters=PARAMETERS)
    assert word_error_rate([(JFK, found.text)]) == 0
    assert 0 <= found.segments[0].start < 1
    assert 10 < found.segments[-1].end <= 11


def test_channels_are_transcribed_separately_or_mixed(
    daemon: RealDaemon, base: WhisperEngine, clips: Clips
) -> None:
    path = clips["stereo_diarization.wav"].path
    found = daemon.transcribe(path, split_channels=True)
    texts = {
        number: "".join(each.text for each in found.segments if each.channel == number).strip()
        for number in (0, 1)
    }
    assert word_error_rate([(LEFT, texts[0]), (RIGHT, texts[1])]) == 0
    mixed = daemon.transcribe(path)
    assert mixed.text == text(library(base, path)[0])
    assert {each.channel for each in mixed.segments} == {None}


def test_recording_in_two_languages(daemon: RealDaemon, clips: Clips) -> None:
    found = daemon.transcribe(clips["multilingual.mp3"].path, condition_on_previous_text=False)
    assert found.language == "en"
    assert found.text.startswith("Permission is hereby granted, free of charge, to any person")
    assert found.segments[-1].end <= found.duration_ms / 1000


def test_hotword_is_heard(daemon: RealDaemon, clips: Clips) -> None:
    path = clips["hotwords.mp3"].path
    assert "ComfyUI" not in daemon.transcribe(path).text
    assert "ComfyUI" in daemon.transcribe(path, hotwords="ComfyUI").text


def test_times_of_words_are_monotonic(daemon: RealDaemon) -> None:
    audio, _ = joined(sentences(), 60)
    found = daemon.transcribe(audio, "tiny.en", word_timestamps=True)
    words = [word for segment in found.segments for word in segment.words or ()]
    assert len(words) > 100
    assert words[0].start >= 0
    assert all(word.start <= word.end for word in words)
    assert all(first.end <= second.start for first, second in pairwise(words))
    for segment in found.segments:
        assert segment.words is not None
        assert segment.start <= segment.words[0].start
        assert segment.words[-1].end <= segment.end <= found.duration_ms / 1000
