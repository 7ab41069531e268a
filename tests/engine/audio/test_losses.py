"""Recordings that were broken off or damaged: what was lost is reported, and nothing else is."""

import io
import os
import re
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from faster_whisper.audio import decode_audio

from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import RATE, Samples
from asrd.errors import BadAudio, WarningCode
from asrd.wire.records import AudioFormat, JobWarning
from tests.support.mediafiles import remuxed, stereo
from tests.support.sounds import encoded, memory_file, s16, sample, wav

FILE = AudioFormat("file")
LIMIT = 3600.0


@pytest.fixture(scope="module")
def speech() -> Samples:
    return np.tile(sample("en-4.wav"), 3)


def read(data: bytes, *, require_complete: bool = False) -> tuple[Samples, list[JobWarning]]:
    with (
        memory_file(data) as fd,
        open_recording(fd, FILE, LIMIT, require_complete=require_complete) as opened,
    ):
        return np.concatenate(list(opened)), opened.warnings


def codes(warnings: list[JobWarning]) -> set[str]:
    return {warning.code for warning in warnings}


INCOMPLETE = {WarningCode.AUDIO_INCOMPLETE.value}
DAMAGED = {WarningCode.AUDIO_DAMAGED.value}

# Container, codec, rate; and whether half of the file says how long the whole was.
KNOWING = [
    ("wav", "pcm_s16le", 16_000, True),
    ("wav", "pcm_f32le", 16_000, True),
    ("wav", "pcm_mulaw", 8_000, True),
    ("wav", "adpcm_ima_wav", 16_000, True),
    ("aiff", "pcm_s16be", 44_100, True),
    ("caf", "pcm_s16le", 16_000, True),
    ("w64", "pcm_s16le", 16_000, True),
    ("au", "pcm_s16be", 8_000, True),
    ("sox", "pcm_s32le", 16_000, True),
    ("flac", "flac", 44_100, True),
    ("tta", "tta", 44_100, True),
    ("wv", "wavpack", 44_100, True),
    ("mp3", "libmp3lame", 44_100, True),
    ("matroska", "aac", 44_100, True),
    ("webm", "libopus", 48_000, True),
    ("flv", "aac", 44_100, True),
    ("rm", "ac3", 48_000, True),
    # Their bytes are counted, but not their seconds.
    ("avi", "libmp3lame", 44_100, False),
    ("ogg", "libopus", 48_000, False),
]
# Nothing in these says how long they are.
SILENT = [
    ("adts", "aac", 44_100),
    ("amr", "amr_nb", 8_000),
    ("mpegts", "mp2", 48_000),
    ("mpeg", "ac3", 48_000),
    ("ac3", "ac3", 48_000),
    ("nut", "aac", 44_100),
    ("voc", "pcm_s16le", 16_000),
]
NEEDING_THEIR_END = [("mp4", "aac", 44_100), ("3gp", "aac", 44_100), ("mov", "alac", 44_100)]


@pytest.mark.parametrize(
    ("container", "codec", "rate"), [*(case[:3] for case in KNOWING), *SILENT, *NEEDING_THEIR_END]
)
def test_a_whole_file_has_no_warning(
    speech: Samples, container: str, codec: str, rate: int
) -> None:
    data = encoded(speech, container, codec, rate)
    samples, warnings = read(data, require_complete=True)
    assert warnings == []
    assert np.array_equal(samples, decode_audio(io.BytesIO(data)))


@pytest.mark.parametrize(("container", "codec", "rate", "seconds_known"), KNOWING)
def test_half_a_file_says_so(
    speech: Samples, container: str, codec: str, rate: int, seconds_known: bool
) -> None:
    data = encoded(speech, container, codec, rate)
    half = data[: len(data) // 2]
    samples, warnings = read(half)
    assert codes(warnings) == INCOMPLETE
    [warning] = warnings
    assert warning.read_seconds == pytest.approx(len(samples) / RATE, abs=0.01)
    if seconds_known:
        assert warning.claimed_seconds == pytest.approx(len(speech) / RATE, abs=0.1)
    with pytest.raises(BadAudio, match=r"cut short|says that it lasts"):
        read(half, require_complete=True)


def test_half_a_large_wav_says_so(speech: Samples) -> None:
    """RF64, whose sizes have 64 bits."""
    data = remuxed(io.BytesIO(encoded(speech, "wav", "pcm_s16le")), "wav", rf64="always")
    assert data.startswith(b"RF64") and read(data)[1] == []
    assert codes(read(data[: len(data) // 2])[1]) == INCOMPLETE


def test_half_an_mp4_says_so_if_it_can_be_read(speech: Samples) -> None:
    tail = encoded(speech, "mp4", "aac", 44_100)
    with pytest.raises(BadAudio, match="cut short"):
        read(tail[: len(tail) // 2])
    front = remuxed(io.BytesIO(tail), "mp4", movflags="faststart")
    assert read(front)[1] == []
    samples, [warning] = read(front[: len(front) // 2])
    assert warning.claimed_seconds == pytest.approx(len(speech) / RATE, abs=0.1)
    assert warning.read_seconds == pytest.approx(len(samples) / RATE, abs=0.01)


@pytest.mark.parametrize("data_size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_wav_from_a_pipe_is_not_incomplete(speech: Samples, data_size: int) -> None:
    assert read(wav(s16(speech).tobytes(), data_size=data_size), require_complete=True)[1] == []


@pytest.mark.parametrize("more", [8, 36, 44])
def test_a_wav_that_counts_its_header_as_samples_is_not_incomplete(
    speech: Samples, more: int
) -> None:
    samples = s16(speech).tobytes()
    assert read(wav(samples, data_size=len(samples) + more), require_complete=True)[1] == []


def test_an_mp3_that_others_were_appended_to_is_not_incomplete(speech: Samples) -> None:
    """FFmpeg guesses its length from the bit rate of the first one."""
    low = encoded(np.tile(speech, 3), "mp3", "libmp3lame", 8_000)
    high = encoded(np.tile(speech, 3), "mp3", "libmp3lame", 48_000)
    samples, warnings = read(low + high, require_complete=True)
    assert len(samples) == pytest.approx(6 * len(speech), abs=RATE / 2)
    assert codes(warnings) <= DAMAGED


def test_an_mp3_without_a_count_of_frames_is_not_incomplete(speech: Samples) -> None:
    """Its length is a guess from the bit rate, and wrong where that changes."""
    data = encoded(np.concatenate((speech, 0 * speech)), "mp3", "libmp3lame", 44_100)
    place = data.index(b"Info") if b"Info" in data else data.index(b"Xing")
    assert read(data[:place] + bytes(64) + data[place + 64 :], require_complete=True)[1] == []


def test_a_video_may_last_longer_than_its_sound(speech: Samples) -> None:
    # The file's length is that of the picture, which is no claim about the sound.
    data = encoded(speech, "matroska", "aac", 44_100, video=True)
    place = data.index(b"\x44\x89\x88") + 3
    assert struct.unpack_from(">d", data, place)[0] < 20_000
    longer = data[:place] + struct.pack(">d", 100_000.0) + data[place + 8 :]
    assert read(longer, require_complete=True)[1] == []


# --- damage ---------------------------------------------------------------------------------------


def fragmented(speech: Samples) -> bytes:
    whole = encoded(speech, "mp4", "aac")
    return remuxed(io.BytesIO(whole), "mp4", movflags="empty_moov", frag_duration="1000000")


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8])
@pytest.mark.parametrize("rubbish", [os.urandom, bytes])
def test_a_fragmented_mp4_goes_on_behind_what_is_damaged(
    speech: Samples, share: float, rubbish: type[bytes]
) -> None:
    data = fragmented(speech)
    intact, none = read(data)
    assert none == []
    start, length = int(len(data) * share), len(data) // 50
    damaged = data[:start] + rubbish(length) + data[start + length :]
    samples, warnings = read(damaged)
    assert DAMAGED <= codes(warnings) <= DAMAGED | INCOMPLETE
    # All is in its place, with silence for what is lost: two fragments of a second at the most.
    assert len(samples) == pytest.approx(len(intact), abs=0.3 * RATE)
    assert np.mean(np.abs(samples[: len(intact)] - intact[: len(samples)]) > 1e-3) < 0.25


def test_a_fragment_without_its_header_is_no_end(speech: Samples) -> None:
    """FFmpeg looks at all of them when it opens the file, and refuses it."""
    data = fragmented(np.tile(speech, 3))
    intact, _ = read(data)
    places = [match.start() for match in re.finditer(b"tfhd", data)]
    damaged = bytearray(data)
    for place in (places[3], places[-3]):
        damaged[place : place + 4] = b"\xff\xee\xdd\xcc"
    samples, warnings = read(bytes(damaged))
    assert codes(warnings) == DAMAGED
    assert len(samples) == len(intact)
    # A run of more packets than FFmpeg can allocate is a damaged number.
    place = [match.end() for match in re.finditer(b"trun", data)][3] + 4
    samples, warnings = read(data[:place] + b"\xff" * 4 + data[place + 4 :])
    assert codes(warnings) == DAMAGED
    assert len(samples) == len(intact)


def test_fragments_are_read_once_wherever_their_samples_lie(speech: Samples) -> None:
    data = bytearray(fragmented(speech))
    places = [match.end() + 8 for match in re.finditer(b"tfhd", data)]
    for place in places[1:]:
        data[place : place + 8] = data[places[0] : places[0] + 8]
    samples, _ = read(bytes(data))
    assert len(samples) < len(speech) + RATE
    # The same with a place behind which FFmpeg sees nothing.
    moofs = [match.start() - 4 for match in re.finditer(b"moof", data)]
    data[moofs[5] : moofs[5] + 100] = bytes(100)
    samples, _ = read(bytes(data))
    assert len(samples) < len(speech) + RATE


def test_packets_that_were_skipped_are_counted(speech: Samples) -> None:
    data = bytearray(encoded(speech, "matroska", "aac", 44_100))
    start = len(data) // 4
    data[start : start + 1500] = np.random.default_rng(4).bytes(1500)
    samples, warnings = read(bytes(data))
    assert DAMAGED & codes(warnings)
    assert len(samples) == pytest.approx(len(speech), abs=RATE)


# --- chains ---------------------------------------------------------------------------------------

Part = tuple[str, str, int]
CHAINS: dict[str, list[Part]] = {
    "ogg": [("ogg", "libopus", 48_000), ("ogg", "libopus", 48_000)],
    "flac, another rate": [("flac", "flac", 16_000), ("flac", "flac", 44_100)],
    "mp3, another rate": [("mp3", "libmp3lame", 44_100), ("mp3", "libmp3lame", 22_050)],
    "adts, another rate": [("adts", "aac", 44_100), ("adts", "aac", 16_000)],
    "matroska, another codec": [("matroska", "aac", 48_000), ("matroska", "libmp3lame", 44_100)],
    "webm": [("webm", "libopus", 48_000), ("webm", "libopus", 48_000)],
    "mp4, another rate": [("mp4", "aac", 48_000), ("mp4", "aac", 16_000)],
    "mpegts, another codec": [("mpegts", "mp2", 48_000), ("mpegts", "aac", 48_000)],
    "wav, another rate": [("wav", "pcm_s16le", 16_000), ("wav", "pcm_s16le", 44_100)],
    "aiff": [("aiff", "pcm_s16be", 16_000), ("aiff", "pcm_s16be", 16_000)],
    "au": [("au", "pcm_s16be", 8_000), ("au", "pcm_s16be", 8_000)],
    "caf": [("caf", "pcm_s16le", 8_000), ("caf", "pcm_s16le", 8_000)],
    "w64": [("w64", "pcm_s16le", 8_000), ("w64", "pcm_s16le", 8_000)],
    "flv": [("flv", "aac", 44_100), ("flv", "aac", 44_100)],
    "tta": [("tta", "tta", 44_100), ("tta", "tta", 22_050)],
    "wavpack": [("wv", "wavpack", 44_100), ("wv", "wavpack", 44_100)],
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_what_follows_a_change_is_read_too(speech: Samples, chain: list[Part]) -> None:
    parts = [encoded(speech, *part) for part in chain]
    samples, _ = read(b"".join(parts))
    expected = sum(len(read(part)[0]) for part in parts)
    assert len(samples) == pytest.approx(expected, abs=0.15 * RATE)
    assert samples[-2 * RATE :].std() == pytest.approx(speech[-2 * RATE :].std(), rel=0.1)


def pages(data: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(data):
        count = data[at + 26]
        end = at + 27 + count + sum(data[at + 27 : at + 27 + count])
        yield at, end
        at = end


def opus_of(channels: int, speech: Samples) -> bytes:
    """Opus whose header says so many channels: each coded frame says for itself what it is."""
    data = bytearray(encoded(speech, "ogg", "libopus", 48_000))
    start, end = next(pages(bytes(data)))
    data[data.index(b"OpusHead") + 9] = channels
    data[start + 22 : start + 26] = bytes(4)
    crc = 0
    for byte in data[start:end]:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    data[start + 22 : start + 26] = crc.to_bytes(4, "little")
    return bytes(data)


def test_an_ogg_chain_may_change_its_channels(speech: Samples) -> None:
    mono, stereo = opus_of(1, speech), opus_of(2, speech)
    one, _ = read(mono)
    two, _ = read(stereo)
    both, warnings = read(mono + stereo)
    assert warnings == []
    assert np.array_equal(both, np.concatenate((one, two)))


def test_a_link_that_can_not_be_read_is_no_end(speech: Samples) -> None:
    data = encoded(speech, "ogg", "libopus", 48_000)
    with pytest.raises(BadAudio):
        read(data + data.replace(b"OpusHead", b"OpusHeap"))


def test_a_link_that_is_cut_short_does_not_hide_the_next_one(speech: Samples) -> None:
    one = encoded(speech, "ogg", "libopus", 48_000)
    other = encoded(speech, "ogg", "libopus", 16_000)
    begin, end = list(pages(one))[-2]
    samples, warnings = read(one[: (begin + end) // 2] + other)
    assert codes(warnings) & INCOMPLETE
    assert len(samples) > 1.5 * len(speech)
    assert np.array_equal(samples[-len(speech) // 2 :], read(other)[0][-len(speech) // 2 :])


def test_flac_may_change_its_channels(speech: Samples) -> None:
    """FFmpeg's parser looks far ahead, and does not see such a change."""
    one = encoded(speech, "flac", "flac")
    other = stereo(speech, speech, "flac", "flac", 44_100)
    samples, _ = read(one + other)
    assert len(samples) == pytest.approx(2 * len(speech), abs=0.3 * RATE)


def test_more_files_than_are_read_are_no_end(
    speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asrd.engine.audio.sections._MOST", 2)
    monkeypatch.setattr("asrd.engine.audio.layout.MAX_LINKS", 3)
    samples, warnings = read(encoded(speech, "wav", "pcm_s16le") * 5)
    assert len(samples) == 3 * len(speech)
    assert codes(warnings) == INCOMPLETE
    for container, codec in (("ogg", "libopus"), ("mp4", "aac")):
        data = encoded(speech, container, codec, 48_000)
        assert read(data * 3)[1] == []
        with pytest.raises(BadAudio, match="more than 3 files"):
            read(data * 4)
