"""`split_channels`: each channel has the transcript that it would have as a file of its own."""

import numpy as np
import pytest

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.channels import MAX_CHANNELS
from asrd.engine.interface import Transcription
from asrd.engine.whisper import WhisperEngine, load_engine
from asrd.errors import BadRequest, TooLarge
from asrd.wire.records import AudioFormat, Options
from tests.engine.test_whisper import GREEDY, SETTINGS, Listener, transcribe
from tests.support.mediafiles import stereo
from tests.support.sounds import encoded, memory_file, sample, silence


@pytest.fixture(scope="module")
def engine() -> WhisperEngine:
    return load_engine(SETTINGS)


def split(
    engine: WhisperEngine, *channels: Samples, listener: Listener | None = None, limit: float = 60.0
) -> Transcription:
    listener = listener or Listener()
    length = max(map(len, channels))
    padded = [np.pad(channel, (0, length - len(channel))) for channel in channels]
    data = np.stack(padded, axis=1).astype("<f4").tobytes()
    format_ = AudioFormat("pcm_f32le", RATE, len(channels))
    options = Options(language="en", beam_size=1, temperature=0.0, split_channels=True)
    with (
        memory_file(data) as fd,
        engine.prepare(
            fd, format_, options, max_audio_seconds=limit, on_progress=listener.on_progress
        ) as prepared,
    ):
        return engine.run(prepared, listener.on_progress, listener.on_segment)


def test_each_channel_is_heard_by_itself_and_in_the_order_of_time(engine: WhisperEngine) -> None:
    left = np.concatenate((sample("en-0.wav"), silence(40)))
    right = np.concatenate((silence(5), sample("en-4.wav"), silence(30), sample("en-1.wav")))
    listener = Listener()
    found = split(engine, left, right, listener=listener, limit=200)
    for channel, samples in enumerate((left, right)):
        alone = transcribe(engine, samples, GREEDY, language="en")
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


def test_one_channel_is_channel_0(engine: WhisperEngine) -> None:
    found = split(engine, sample("en-0.wav"))
    assert {s.channel for s in found.segments} == {0}
    assert found.text == transcribe(engine, sample("en-0.wav"), GREEDY, language="en").text


def test_what_follows_a_recording_of_one_channel_is_mixed(engine: WhisperEngine) -> None:
    """None of its channels is left out."""
    one, other = sample("en-0.wav"), sample("en-1.wav")
    data = encoded(one, "wav", "pcm_s16le") + stereo(0 * other, other, "wav", "pcm_s16le")
    options = Options(language="en", beam_size=1, temperature=0.0, split_channels=True)
    listener = Listener()
    with (
        memory_file(data) as fd,
        engine.prepare(
            fd,
            AudioFormat("file"),
            options,
            max_audio_seconds=60,
            on_progress=listener.on_progress,
        ) as prepared,
    ):
        found = engine.run(prepared, listener.on_progress, listener.on_segment)
    whole = np.concatenate((one, other * np.float32(0.5))).astype(np.float32)
    assert found.text == transcribe(engine, whole, GREEDY, language="en").text


def test_the_channels_are_few_and_share_the_limit_of_seconds(engine: WhisperEngine) -> None:
    short = silence(1)
    with pytest.raises(BadRequest, match="split_channels: the recording has 9 channels, and at "):
        split(engine, *[short] * (MAX_CHANNELS + 1))
    clip = sample("en-0.wav")
    split(engine, clip, clip, limit=2.1 * len(clip) / RATE)
    with pytest.raises(TooLarge, match=r"for each of 2 channels \(split_channels\)"):
        split(engine, clip, clip, limit=1.9 * len(clip) / RATE)
