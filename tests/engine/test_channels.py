"""`split_channels`: each channel has the transcript that it would have as a file of its own."""

import dataclasses

import numpy as np
import pytest

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.channels import MAX_CHANNELS
from asrd.engine.interface import Transcription
from asrd.engine.whisper import WhisperEngine
from asrd.errors import BadRequest, TooLarge
from asrd.wire.records import AudioFormat
from tests.support.engine_jobs import GREEDY, Listener, run_job, transcribe
from tests.support.mediafiles import stereo
from tests.support.sounds import encoded, memory_file, sample, silence

SPLIT = dataclasses.replace(GREEDY, split_channels=True)


def split(
    engine: WhisperEngine, *channels: Samples, listener: Listener | None = None, limit: float = 60.0
) -> Transcription:
    length = max(map(len, channels))
    padded = [np.pad(channel, (0, length - len(channel))) for channel in channels]
    audio = AudioFormat("pcm_f32le", RATE, len(channels))
    with memory_file(np.stack(padded, axis=1).astype("<f4").tobytes()) as fd:
        return run_job(engine, fd, audio, SPLIT, listener=listener, limit=limit)


def test_channels_are_transcribed_separately_and_sorted_by_time(engine: WhisperEngine) -> None:
    left = np.concatenate((sample("en-0.wav"), silence(40)))
    right = np.concatenate((silence(5), sample("en-4.wav"), silence(30), sample("en-1.wav")))
    listener = Listener()
    found = split(engine, left, right, listener=listener, limit=200)
    for channel, samples in enumerate((left, right)):
        alone = transcribe(engine, samples)
        texts = [s.text for s in found.segments if s.channel == channel]
        assert texts == [s.text for s in alone.segments]
        assert texts
    assert [s.start for s in found.segments] == sorted(s.start for s in found.segments)
    assert [s.id for s in found.segments] == list(range(1, len(found.segments) + 1))
    assert tuple(listener.segments) == found.segments
    assert found.text == "".join(s.text for s in found.segments).strip()
    assert listener.progress[-1][0] == pytest.approx(found.audio_seconds, abs=31)
    done = [seconds for seconds, _ in listener.progress]
    assert done == sorted(done)


def test_only_channel_has_number_0(engine: WhisperEngine) -> None:
    found = split(engine, sample("en-0.wav"))
    assert {s.channel for s in found.segments} == {0}
    assert found.text == transcribe(engine, sample("en-0.wav")).text


def test_channels_that_follow_a_single_one_are_mixed(engine: WhisperEngine) -> None:
    """None of its channels is left out."""
    one, other = sample("en-0.wav"), sample("en-1.wav")
    data = encoded(one, "wav", "pcm_s16le") + stereo(0 * other, other, "wav", "pcm_s16le")
    whole = np.concatenate((one, other * np.float32(0.5))).astype(np.float32)
    found = transcribe(engine, data, SPLIT)
    assert found.text == transcribe(engine, whole).text


def test_channels_are_few_and_share_the_limit_of_seconds(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadRequest, match="split_channels: the recording has 9 channels; at most "):
        split(engine, *[silence(1)] * (MAX_CHANNELS + 1))
    clip = sample("en-0.wav")
    seconds = len(clip) / RATE
    split(engine, clip, clip, limit=2.1 * seconds)
    with pytest.raises(TooLarge, match=r"for each of 2 channels \(split_channels\)"):
        split(engine, clip, clip, limit=1.9 * seconds)

    # A container's length may be known only once it has been read.
    def fail(*arguments: object) -> Transcription:
        raise TooLarge("audio: too long")

    monkeypatch.setattr(engine, "_run", fail)
    with pytest.raises(TooLarge, match=r"audio: too long for each of 2 channels"):
        split(engine, clip, clip)
