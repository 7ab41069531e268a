"""Which kinds of files are accepted, and that the others are refused in a useful sentence."""

import io
from typing import Any

import av
import numpy as np
import pytest

from asrd.engine.audio.containers import OPTIONS
from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import RATE, Samples
from asrd.errors import BadAudio
from asrd.wire.records import AudioFormat
from tests.support.sounds import memory_file, s16, sample

FILE = AudioFormat("file")
ACCEPTED_NAMES = OPTIONS["format_whitelist"].split(",")

# What opens other files, ports or devices, or is no recording.
DANGEROUS = {
    *("concat", "dash", "hls", "imf", "rtp", "rtsp", "sap", "sdp", "webm_dash_manifest", "vobsub"),
    *("image2", "image2pipe", "data", "ffmetadata", "mpjpeg", "sbg", "tty"),
    *("alsa", "fbdev", "kmsgrab", "lavfi", "oss", "v4l2", "video4linux2", "x11grab"),
}


@pytest.fixture(scope="module")
def speech() -> Samples:
    return sample("en-4.wav")


def read(data: bytes) -> Samples:
    with memory_file(data) as fd, open_recording(fd, FILE, 3600) as opened:
        return np.concatenate(list(opened))


def test_no_container_that_opens_anything_else_is_accepted() -> None:
    assert not set(ACCEPTED_NAMES) & DANGEROUS
    assert not [name for name in ACCEPTED_NAMES if name.endswith("_pipe")]


def test_all_that_are_accepted_are_in_this_ffmpeg() -> None:
    for name in ACCEPTED_NAMES:
        assert av.ContainerFormat(name, "r").is_input


def sphere(samples: Samples) -> bytes:
    head = (
        f"NIST_1A\n   1024\nsample_count -i {len(samples)}\nsample_n_bytes -i 2\n"
        f"channel_count -i 1\nsample_byte_format -s2 01\nsample_rate -i {RATE}\n"
        "sample_coding -s3 pcm\nend_head\n"
    )
    return head.encode().ljust(1024) + s16(samples).tobytes()


def test_nist_sphere(speech: Samples) -> None:
    assert np.array_equal(read(sphere(speech)), s16(speech) / np.float32(32768))


def test_dv(speech: Samples) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="dv") as output:
        picture: Any = output.add_stream("dvvideo", rate=25)
        picture.width, picture.height, picture.pix_fmt = 720, 576, "yuv420p"
        sound: Any = output.add_stream("pcm_s16le", rate=48_000, layout="stereo")
        resampler = av.AudioResampler("s16", "stereo", 48_000, frame_size=1920)
        frame = av.AudioFrame.from_ndarray(s16(speech)[np.newaxis], "s16", "mono")
        frame.sample_rate = RATE
        for number, part in enumerate(resampler.resample(frame)):
            image = av.VideoFrame(720, 576, "yuv420p")
            image.pts = number
            output.mux(picture.encode(image))
            part.pts = None
            output.mux(sound.encode(part))
    heard = read(file.getvalue())
    assert len(heard) == pytest.approx(len(speech), abs=RATE / 5)
    assert heard.std() > speech.std() / 2


@pytest.mark.parametrize(
    "data",
    [b"#EXTM3U\n#EXTINF:10,\na.wav\n", b"hello world\n" * 99, b"\x89PNG\r\n\x1a\n" + bytes(99)],
)
def test_a_refusal_lists_what_is_accepted(data: bytes) -> None:
    with pytest.raises(BadAudio, match="accepted are audio and video files such as WAV, FLAC, MP3"):
        read(data)
