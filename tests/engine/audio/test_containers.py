"""The kinds of files that are accepted."""

import av
import numpy as np
import pytest

from asrd.engine.audio.containers import OPTIONS
from asrd.engine.audio.reader import RATE, Samples
from tests.support.sounds import encoded, read, s16

ACCEPTED_NAMES = OPTIONS["format_whitelist"].split(",")
# They open other files, ports or devices, or are no recordings.
DANGEROUS = {
    *("concat", "dash", "hls", "imf", "rtp", "rtsp", "sap", "sdp", "webm_dash_manifest", "vobsub"),
    *("image2", "image2pipe", "data", "ffmetadata", "mpjpeg", "sbg", "tty"),
    *("alsa", "fbdev", "kmsgrab", "lavfi", "oss", "v4l2", "video4linux2", "x11grab"),
}


def test_no_container_that_opens_anything_else_is_accepted() -> None:
    assert not set(ACCEPTED_NAMES) & DANGEROUS
    assert not [name for name in ACCEPTED_NAMES if name.endswith("_pipe")]


def test_all_accepted_containers_are_in_this_ffmpeg() -> None:
    for name in ACCEPTED_NAMES:
        assert av.ContainerFormat(name, "r").is_input


def test_nist_sphere_is_read(speech: Samples) -> None:
    head = (
        f"NIST_1A\n   1024\nsample_count -i {len(speech)}\nsample_n_bytes -i 2\n"
        f"channel_count -i 1\nsample_byte_format -s2 01\nsample_rate -i {RATE}\n"
        "sample_coding -s3 pcm\nend_head\n"
    )
    heard, _ = read(head.encode().ljust(1024) + s16(speech).tobytes())
    assert np.array_equal(heard, s16(speech) / np.float32(32768))


def test_dv_is_read(speech: Samples) -> None:
    both = np.stack((speech, speech), axis=1)
    size = (720, 576)
    data = encoded(both, "dv", "pcm_s16le", 48_000, layout="stereo", video="dvvideo", size=size)
    heard, _ = read(data)
    assert len(heard) == pytest.approx(len(speech), abs=RATE / 5)
    assert heard.std() > speech.std() / 2
