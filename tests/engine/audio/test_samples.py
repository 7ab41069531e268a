"""Samples that are none, channels that cancel each other out, and any number of channels."""

import io
from typing import Any

import av
import numpy as np
import pytest
from faster_whisper.audio import decode_audio

from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import RATE, AudioReader, Samples
from asrd.engine.audio.samples import SampleChecks
from asrd.errors import BadAudio, WarningCode
from asrd.wire.records import AudioFormat
from tests.support.mediafiles import stereo
from tests.support.sounds import encoded, memory_file, noise, s16, sample, silence, wav

FILE = AudioFormat("file")
F32 = AudioFormat("pcm_f32le")


def read(
    data: bytes, audio: AudioFormat = FILE, channel: int | None = None
) -> tuple[Samples, AudioReader]:
    with (
        memory_file(data) as fd,
        open_recording(fd, audio, 3600, channel=channel) as opened,
    ):
        return np.concatenate(list(opened)), opened


@pytest.fixture(scope="module")
def speech() -> Samples:
    return sample("en-4.wav")


def codes(opened: AudioReader) -> list[str]:
    return [warning.code for warning in opened.warnings]


# --- values that are no samples -------------------------------------------------------------------


def floats(samples: Samples, container: str) -> tuple[bytes, AudioFormat]:
    if container == "pcm":
        return samples.tobytes(), F32
    data = encoded(silence(len(samples) / RATE), "wav", "pcm_f32le")
    return data[: -samples.nbytes] + samples.tobytes(), FILE


@pytest.mark.parametrize("container", ["pcm", "wav"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 65_537, -65_537, 1e30])
def test_single_values_become_silence(speech: Samples, bad: float, container: str) -> None:
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
def test_many_values_are_refused(speech: Samples, container: str, first: bool) -> None:
    samples = speech.copy()
    count = len(samples) // 20
    samples[slice(None, count) if first else slice(-count, None)] = np.nan
    with pytest.raises(BadAudio, match="are not a number"):
        read(*floats(samples, container))


def test_a_burst_is_judged_alike_wherever_it_is(speech: Samples) -> None:
    long = np.tile(speech, 4)
    for start in (0, 40_000, len(long) - 1000):
        samples = long.copy()
        samples[start : start + 1000] = np.nan
        assert codes(read(*floats(samples, "wav"))[1]) == [WarningCode.SAMPLES_REPLACED]


def test_where_the_first_one_is_counts_frames() -> None:
    checks = SampleChecks()
    checks.replaced(np.zeros(2 * 48_000), 2, 48_000)
    values = np.zeros(2 * 48_000)
    values[48_001] = np.nan
    assert checks.replaced(values, 2, 48_000).any() is np.False_
    assert "1.500 s" in checks.warnings()[0].text


# --- channels that cancel out ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "codec"), [("flac", "flac"), ("wav", "pcm_s16le"), ("mp4", "aac")]
)
def test_of_inverted_channels_one_is_taken(speech: Samples, container: str, codec: str) -> None:
    heard, opened = read(stereo(speech, -speech, container, codec))
    assert codes(opened) == [WarningCode.CHANNELS_CANCEL_OUT]
    assert heard.std() == pytest.approx(speech.std(), rel=0.05)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_of_inverted_pcm_one_is_taken(speech: Samples, rate: int) -> None:
    pairs = np.stack((speech, -speech), axis=1)
    heard, opened = read(pairs.tobytes(), AudioFormat("pcm_f32le", rate, 2))
    assert codes(opened) == [WarningCode.CHANNELS_CANCEL_OUT]
    assert heard.std() == pytest.approx(speech.std(), rel=0.05)
    assert opened.channels == 2


# FLAC has at most eight channels.
@pytest.mark.parametrize(
    ("codec", "channels"),
    [*(("pcm_s16le", n) for n in (3, 4, 6, 8, 9)), *(("flac", n) for n in (3, 4, 6, 8))],
)
def test_of_inverted_channels_among_more_one_is_taken(
    speech: Samples, codec: str, channels: int
) -> None:
    frames = np.zeros((len(speech), channels), np.int16)
    frames[:, 0], frames[:, 1] = s16(speech), -s16(speech)
    layout = {3: "3.0", 4: "quad", 6: "5.1", 8: "7.1", 9: "9C"}[channels]
    data = media(frames, codec, "wav" if codec == "pcm_s16le" else "flac", layout)
    heard, opened = read(data)
    assert codes(opened) == [WarningCode.CHANNELS_CANCEL_OUT]
    assert heard.std() == pytest.approx(speech.std(), rel=0.05)


def test_of_faint_inverted_channels_one_is_taken(speech: Samples) -> None:
    faint = speech * np.float32(0.005 / np.abs(speech).max())
    heard, opened = read(stereo(faint, -faint, "flac", "flac"))
    assert codes(opened) == [WarningCode.CHANNELS_CANCEL_OUT]
    assert heard.std() == pytest.approx(faint.std(), rel=0.05)


def test_the_louder_one_is_taken(speech: Samples) -> None:
    heard, _ = read(stereo(-0.95 * speech, speech, "flac", "flac"))
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
def test_other_stereo_is_what_faster_whisper_gets(
    speech: Samples, channels: Any, container: str, codec: str
) -> None:
    left, right = channels(speech)
    data = stereo(left, right, container, codec)
    heard, opened = read(data)
    assert opened.warnings == []
    assert np.array_equal(heard, decode_audio(io.BytesIO(data)))


def test_it_is_decided_block_by_block_and_without_a_seam(speech: Samples) -> None:
    """Only some of it is inverted: what the other channel says elsewhere must not be lost."""
    block = np.tile(speech, 4)[: 10 * RATE]
    left = np.concatenate((block, block, 0 * block))
    right = np.concatenate((0 * block, -block, block))
    heard, opened = read(stereo(left, right, "flac", "flac"))
    assert np.abs(heard - np.concatenate((block / 2, block, block / 2))).max() < 1e-3
    assert "from 10 s on" in opened.warnings[0].text


def test_nine_channels_beside_silence_do_not_cancel(speech: Samples) -> None:
    frames = np.zeros((len(speech), 9), np.float32)
    frames[:, 4] = speech
    heard, opened = read(frames.tobytes(), AudioFormat("pcm_f32le", RATE, 9))
    assert opened.warnings == []
    assert np.abs(heard - speech / 9).max() < 1e-5


# --- any number of channels -----------------------------------------------------------------------


def media(frames: Any, codec: str, container: str, layout: str = "") -> bytes:
    """16-bit `frames`, shape (count, channels), in a container."""
    file = io.BytesIO()
    layout = layout or f"{frames.shape[1]}C"
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=RATE, layout=layout)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(frames.reshape(1, -1)), "s16", layout
        )
        frame.sample_rate = RATE
        for part in av.AudioResampler(stream.codec_context.format.name, layout, RATE).resample(
            frame
        ):
            part.pts = None
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("channels", [9, 32, 64])
@pytest.mark.parametrize(
    ("codec", "container"),
    [("pcm_s16le", "wav"), ("pcm_f32le", "wav"), ("pcm_s24le", "wav"), ("pcm_s16le_planar", "nut")],
)
def test_channels_without_a_layout_are_averaged(
    speech: Samples, channels: int, codec: str, container: str
) -> None:
    frames = np.zeros((len(speech), channels), np.int16)
    frames[:, 0], frames[:, -1] = s16(speech), s16(speech)
    data = media(frames, codec, container)
    heard, opened = read(data)
    assert opened.channels == channels
    assert np.abs(heard - 2 * speech / channels).max() < 1e-3
    assert np.abs(read(data, channel=channels - 1)[0] - speech).max() < 1e-3
    assert not read(data, channel=1)[0].any()


def test_nine_channels_of_64_bits_are_averaged(speech: Samples) -> None:
    frames = np.repeat(s16(speech)[:RATE, np.newaxis], 9, axis=1)
    heard, _ = read(media(frames, "pcm_s64le", "nut"))
    assert np.abs(heard - speech[:RATE]).max() < 1e-3


@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_one_channel_of_several_can_be_read(speech: Samples, rate: int) -> None:
    other = np.roll(speech, 9000)
    pairs = np.stack((speech, other), axis=1)
    pcm = AudioFormat("pcm_f32le", rate, 2)
    for channel, expected in enumerate((speech, other)):
        alone = read(expected.tobytes(), AudioFormat("pcm_f32le", rate))[0]
        assert np.array_equal(read(pairs.tobytes(), pcm, channel)[0], alone)
        heard, opened = read(stereo(speech, other, "flac", "flac"), FILE, channel)
        assert np.abs(heard - expected).max() < 1e-3
        assert opened.channels == 2
    mono, opened = read(wav(s16(speech).tobytes()), FILE, 0)
    assert opened.channels == 1
    assert np.array_equal(mono, s16(speech) / np.float32(32768))
