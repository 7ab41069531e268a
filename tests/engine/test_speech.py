"""The task `speech`: a segment without text for each stretch of speech, by the VAD alone."""

from typing import Any

import numpy as np
import pytest
from faster_whisper.vad import get_speech_timestamps

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.whisper import WhisperEngine
from asrd.errors import BadAudio, BadRequest
from asrd.wire.fields import parse
from asrd.wire.options import Options
from asrd.wire.records import WINDOW_SECONDS
from tests.support.engine_jobs import Listener, transcribe
from tests.support.sounds import encoded, sample, silence

SPEECH = Options(task="speech")
QUICK: dict[str, Any] = {"min_silence_duration_ms": 200, "speech_pad_ms": 0}


@pytest.fixture(scope="module")
def audio() -> Samples:
    """Two utterances between silences."""
    four = sample("en-4.wav")
    return np.concatenate([silence(1), four, silence(4), four, silence(3)])


@pytest.mark.parametrize("given", [{}, QUICK])
def test_stretches_of_speech_are_those_of_faster_whisper(
    engine: WhisperEngine, audio: Samples, given: dict[str, Any]
) -> None:
    options = parse(Options, {"task": "speech", "vad_parameters": given})
    listener = Listener()
    found = transcribe(engine, audio, options, listener)
    expected = get_speech_timestamps(audio, **given)
    assert len(expected) > 1
    assert [(each.start, each.end) for each in found.segments] == [
        (round(each["start"] / RATE, 3), round(each["end"] / RATE, 3)) for each in expected
    ]
    assert [each.id for each in found.segments] == list(range(1, len(expected) + 1))
    assert {each.text for each in found.segments} == {""}
    assert tuple(listener.segments) == found.segments
    assert (found.text, found.language) == ("", None)
    assert found.audio_seconds == pytest.approx(len(audio) / RATE)


def test_silence_has_no_speech(engine: WhisperEngine) -> None:
    assert transcribe(engine, silence(2 * WINDOW_SECONDS), SPEECH).segments == ()


def test_file_is_searched_too(engine: WhisperEngine, audio: Samples) -> None:
    flac = encoded(audio, "flac", "flac")
    plain = transcribe(engine, audio, SPEECH)
    assert [each.start for each in transcribe(engine, flac, SPEECH).segments] == pytest.approx(
        [each.start for each in plain.segments], abs=0.1
    )
    with pytest.raises(BadAudio):
        transcribe(engine, b"no audio" * 100, SPEECH)


def test_job_can_be_cancelled_between_two_blocks(engine: WhisperEngine, audio: Samples) -> None:
    listener = Listener(InterruptedError(), progress=2)
    with pytest.raises(InterruptedError):
        transcribe(engine, np.tile(audio, 5), SPEECH, listener)
    assert len(listener.progress) == 2


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"language": "en"}, "language: has no effect"),
        ({"word_timestamps": True}, "word_timestamps: has no effect"),
        ({"split_channels": True}, "split_channels: has no effect"),
        ({"hotwords": "green"}, "hotwords: has no effect"),
        ({"batch_size": 8}, "batch_size: has no effect"),
        ({"vad_filter": False}, "vad_filter: false: is not possible"),
    ],
)
def test_options_about_text_are_refused(
    engine: WhisperEngine, asked: dict[str, Any], field: str
) -> None:
    with pytest.raises(BadRequest, match=f"{field} with task speech"):
        transcribe(engine, silence(1), parse(Options, {"task": "speech", **asked}))
