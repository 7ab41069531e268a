"""Recordings that were broken off or damaged: what was lost is reported, and nothing else is."""

import io
import struct

import numpy as np
import pytest

from asrd.engine.audio.reader import RATE, Samples
from asrd.errors import BadAudio, WarningCode
from tests.support.mediafiles import remuxed
from tests.support.sounds import codes, encoded, read, s16, wav

INCOMPLETE = {WarningCode.AUDIO_INCOMPLETE.value}
DAMAGED = {WarningCode.AUDIO_DAMAGED.value}

# Half of these states the length of the whole; of the others only the bytes are counted.
CLAIMING = [
    "wav",
    "aiff",
    "caf",
    "w64",
    "au",
    "sox",
    "flac",
    "tta",
    "wv",
    "mp3",
    "matroska",
    "webm",
    "flv",
    "rm",
]
COUNTING = ["avi", "voc", "ogg"]


@pytest.mark.parametrize("container", [*CLAIMING, *COUNTING])
def test_half_a_file_is_incomplete(longer: Samples, container: str) -> None:
    data = encoded(longer, container)
    half = data[: len(data) // 2]
    samples, opened = read(half)
    assert codes(opened) == INCOMPLETE
    [warning] = opened.warnings
    assert warning.read_seconds == pytest.approx(len(samples) / RATE, abs=0.01)
    if container in CLAIMING:
        assert warning.claimed_seconds == pytest.approx(len(longer) / RATE, abs=0.1)
    with pytest.raises(BadAudio, match=r"cut short|says that it lasts"):
        read(half, require_complete=True)


def test_half_a_large_wav_is_incomplete(longer: Samples) -> None:
    """RF64, whose sizes have 64 bits."""
    data = remuxed(io.BytesIO(encoded(longer, "wav")), "wav", rf64="always")
    assert data.startswith(b"RF64") and read(data)[1].warnings == []
    assert codes(read(data[: len(data) // 2])[1]) == INCOMPLETE
    five_gib = data[:28] + struct.pack("<Q", 5 << 30) + data[36:]
    assert codes(read(five_gib)[1]) == INCOMPLETE


def test_half_an_mp4_is_refused_or_incomplete(longer: Samples) -> None:
    tail = encoded(longer, "mp4")
    with pytest.raises(BadAudio, match="cut short"):
        read(tail[: len(tail) // 2])
    front = remuxed(io.BytesIO(tail), "mp4", movflags="faststart")
    assert read(front)[1].warnings == []
    samples, opened = read(front[: len(front) // 2])
    [warning] = opened.warnings
    assert warning.claimed_seconds == pytest.approx(len(longer) / RATE, abs=0.1)
    assert warning.read_seconds == pytest.approx(len(samples) / RATE, abs=0.01)


@pytest.mark.parametrize("data_size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_wav_from_a_pipe_is_complete(speech: Samples, data_size: int) -> None:
    data = s16(speech)
    samples, opened = read(wav(data.tobytes(), data_size=data_size), limit=10)
    assert np.array_equal(samples, data.astype(np.float32) / 32768)
    assert opened.warnings == []


def test_wav_that_counts_its_header_is_complete(speech: Samples) -> None:
    samples = s16(speech).tobytes()
    assert read(wav(samples, data_size=len(samples) + 44))[1].warnings == []


def test_mp3_with_others_appended_is_complete(speech: Samples) -> None:
    """FFmpeg guesses its length from the bit rate of the first one."""
    low = encoded(np.tile(speech, 9), "mp3", "libmp3lame", 8_000)
    high = encoded(np.tile(speech, 9), "mp3", "libmp3lame", 48_000)
    samples, opened = read(low + high, require_complete=True)
    assert len(samples) == pytest.approx(18 * len(speech), abs=RATE / 2)
    assert codes(opened) <= DAMAGED


def test_mp3_without_a_count_of_frames_is_complete(longer: Samples) -> None:
    """Its length is a guess from the bit rate, and wrong where that changes."""
    data = encoded(np.concatenate((longer, 0 * longer)), "mp3")
    place = data.index(b"Info") if b"Info" in data else data.index(b"Xing")
    assert read(data[:place] + bytes(64) + data[place + 64 :])[1].warnings == []


def test_video_may_last_longer_than_its_audio(longer: Samples) -> None:
    # The file's length is that of the picture, which is no claim about the audio.
    data = encoded(longer, "matroska", video="mpeg4")
    place = data.index(b"\x44\x89\x88") + 3
    assert struct.unpack_from(">d", data, place)[0] < 20_000
    longer_video = data[:place] + struct.pack(">d", 100_000.0) + data[place + 8 :]
    assert read(longer_video)[1].warnings == []


def test_claim_of_more_than_a_week_is_not_reported(speech: Samples) -> None:
    """Its seconds would be no sensible field."""
    data = bytearray(encoded(speech, "caf"))
    struct.pack_into(">Q", data, data.index(b"data") + 4, 1 << 40)
    [warning] = read(bytes(data))[1].warnings
    assert "cut short" in warning.text
    assert warning.claimed_seconds is None


def test_skipped_packets_are_reported(longer: Samples) -> None:
    data = bytearray(encoded(longer, "matroska"))
    start = len(data) // 4
    data[start : start + 1500] = np.random.default_rng(4).bytes(1500)
    samples, opened = read(bytes(data))
    assert DAMAGED & codes(opened)
    assert len(samples) == pytest.approx(len(longer), abs=RATE)
