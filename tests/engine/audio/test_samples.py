"""Broken samples, channels that cancel each other out, and any number of channels."""

import io
from typing import Any

import numpy as np
import pytest
from faster_whisper.audio import decode_audio

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.audio.samples import SampleChecks
from asrd.errors import BadAudio, WarningCode
from asrd.wire.records import AudioFormat
from tests.support.mediafiles import stereo
from tests.support.sounds import FILE, codes, encoded, noise, read, s16, silence, wav

F32 = AudioFormat("pcm_f32le")


# --- broken values --------------------------------------------------------------------------------


def floats(samples: Samples, container: str) -> tuple[bytes, AudioFormat]:
    if container == "pcm":
        return samples.tobytes(), F32
    data = encoded(silence(len(samples) / RATE), "wav", "pcm_f32le")
    return data[: -samples.nbytes] + samples.tobytes(), FILE


@pytest.mark.parametrize("container", ["pcm", "wav"])
@pytest.mark.parametrize("bad", [np.nan, -np.inf, 65_537])
def test_single_broken_values_become_silence(speech: Samples, bad: float, container: str) -> None:
    samples = speech.copy()
    samples[[20_000, 20_001, 30_000]] = bad
    heard, opened = read(*floats(samples, container))
    samples[[20_000, 20_001, 30_000]] = 0
    assert np.abs(heard - samples).max() < 1e-4
    [warning] = opened.warnings
    assert warning.code == WarningCode.SAMPLES_REPLACED
    assert "(3, the first at 1.250 s)" in warning.text


@pytest.mark.parametrize("container", ["pcm", "wav"])
@pytest.mark.parametrize("first", [True, False])
def test_many_broken_values_are_refused(speech: Samples, container: str, first: bool) -> None:
    samples = speech.copy()
    count = len(samples) // 20
    samples[slice(None, count) if first else slice(-count, None)] = np.nan
    with pytest.raises(BadAudio, match="are not a number"):
        read(*floats(samples, container))


def test_burst_of_broken_values_counts_alike_anywhere(speech: Samples) -> None:
    long = np.tile(speech, 4)
    for start in (0, 40_000, len(long) - 1000):
        samples = long.copy()
        samples[start : start + 1000] = np.nan
        assert codes(read(*floats(samples, "wav"))[1]) == {WarningCode.SAMPLES_REPLACED}


def test_place_of_the_first_broken_value_counts_frames() -> None:
    checks = SampleChecks()
    checks.replaced(np.zeros(2 * 48_000), 2, 48_000)
    values = np.zeros(2 * 48_000)
    values[48_001] = np.nan
    assert checks.replaced(values, 2, 48_000).any() is np.False_
    assert "1.500 s" in checks.warnings()[0].text


# --- channels that cancel out ---------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_one_channel_of_inverted_pcm_is_kept(speech: Samples, rate: int) -> None:
    pairs = np.stack((speech, -speech), axis=1)
    heard, opened = read(pairs.tobytes(), AudioFormat("pcm_f32le", rate, 2))
    assert codes(opened) == {WarningCode.CHANNELS_CANCEL_OUT}
    assert heard.std() == pytest.approx(speech.std(), rel=0.05)
    assert opened.channels == 2


LAYOUTS = {2: "stereo", 3: "3.0", 8: "7.1", 9: "9C"}
# FLAC has at most eight channels, AAC is of planar floats.
INVERTED = [
    *(("wav", "pcm_s16le", n, 0.5) for n in (2, 9)),
    *(("wav", codec, 2, 0.5) for codec in ("pcm_u8", "pcm_s32le", "pcm_f64le")),
    *(("flac", "flac", n, 0.5) for n in (2, 3, 8)),
    *(("mp4", "aac", 2, 0.5), ("flac", "flac", 2, 0.005)),
]


@pytest.mark.parametrize(("container", "codec", "channels", "loudest"), INVERTED)
def test_one_of_inverted_channels_is_kept(
    speech: Samples, container: str, codec: str, channels: int, loudest: float
) -> None:
    quiet = speech * np.float32(loudest / np.abs(speech).max())
    frames = np.zeros((len(speech), channels), np.float32)
    frames[:, 0], frames[:, 1] = quiet, -quiet
    data = encoded(frames, container, codec, 16_000, layout=LAYOUTS[channels])
    heard, opened = read(data)
    assert codes(opened) == {WarningCode.CHANNELS_CANCEL_OUT}
    assert heard.std() == pytest.approx(quiet.std(), rel=0.1)


def test_louder_of_inverted_channels_is_kept(speech: Samples) -> None:
    heard, _ = read(stereo(-0.95 * speech, speech, "flac"))
    assert np.abs(heard - speech).max() < 1e-3


OTHERS: dict[str, Any] = {
    "the same": lambda speech: (speech, speech),
    "one silent": lambda speech: (speech, 0 * speech),
    "two voices": lambda speech: (speech, np.roll(speech, 9000)),
    "hiss": lambda speech: (noise(3, 0.1), np.roll(noise(3, 0.1), 999)),
    "a little out of phase": lambda speech: (speech, -0.5 * speech),
    "silence": lambda speech: (silence(3), silence(3)),
    "rounding": lambda speech: (noise(3, 1e-5), -noise(3, 1e-5)),
}


@pytest.mark.parametrize("channels", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize(("container", "codec"), [("flac", "flac"), ("mp4", "aac")])
def test_other_stereo_equals_that_of_faster_whisper(
    speech: Samples, channels: Any, container: str, codec: str
) -> None:
    left, right = channels(speech)
    data = stereo(left, right, container, codec)
    heard, opened = read(data)
    assert opened.warnings == []
    assert np.array_equal(heard, decode_audio(io.BytesIO(data)))


def test_channel_is_kept_block_by_block_without_a_seam(speech: Samples) -> None:
    """Only some of it is inverted: the other channel's speech elsewhere must not be lost."""
    block = np.tile(speech, 4)[: 10 * RATE]
    left = np.concatenate((block, block, 0 * block))
    right = np.concatenate((0 * block, -block, block))
    heard, opened = read(stereo(left, right, "flac"))
    assert np.abs(heard - np.concatenate((block / 2, block, block / 2))).max() < 1e-3
    assert "from 10 s on" in opened.warnings[0].text


def test_one_channel_and_eight_silent_ones_are_mixed(speech: Samples) -> None:
    frames = np.zeros((len(speech), 9), np.float32)
    frames[:, 4] = speech
    heard, opened = read(frames.tobytes(), AudioFormat("pcm_f32le", RATE, 9))
    assert opened.warnings == []
    assert np.abs(heard - speech / 9).max() < 1e-5


# --- any number of channels -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "container", "channels"),
    [
        ("pcm_s16le", "wav", 64),
        ("pcm_f32le", "wav", 9),
        ("pcm_s16le_planar", "nut", 32),
        ("pcm_s64le", "nut", 9),
    ],
)
def test_channels_without_a_layout_are_averaged(
    speech: Samples, codec: str, container: str, channels: int
) -> None:
    frames = np.zeros((len(speech), channels), np.float32)
    frames[:, 0], frames[:, -1] = speech, speech
    data = encoded(frames, container, codec, layout=f"{channels}C")
    heard, opened = read(data)
    assert opened.channels == channels
    assert np.abs(heard - 2 * speech / channels).max() < 1e-3
    assert np.abs(read(data, channel=channels - 1)[0] - speech).max() < 1e-3
    assert not read(data, channel=1)[0].any()


@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_one_channel_of_several_can_be_read(speech: Samples, rate: int) -> None:
    other = np.roll(speech, 9000)
    pairs = np.stack((speech, other), axis=1)
    pcm = AudioFormat("pcm_f32le", rate, 2)
    for channel, expected in enumerate((speech, other)):
        alone = read(expected.tobytes(), AudioFormat("pcm_f32le", rate))[0]
        assert np.array_equal(read(pairs.tobytes(), pcm, channel=channel)[0], alone)
        heard, opened = read(stereo(speech, other, "flac", "flac"), channel=channel)
        assert np.abs(heard - expected).max() < 1e-3
        assert opened.channels == 2
    mono, opened = read(wav(s16(speech).tobytes()), channel=0)
    assert opened.channels == 1
    assert np.array_equal(mono, s16(speech) / np.float32(32768))
