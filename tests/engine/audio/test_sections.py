"""Files of several sections: chains, and what follows damage."""

import io
import os
import re
from collections.abc import Iterator

import numpy as np
import pytest

from asrd.engine.audio.reader import RATE, Samples
from asrd.errors import BadAudio, WarningCode
from tests.support.mediafiles import remuxed, stereo
from tests.support.sounds import KINDS, codes, encoded, read

INCOMPLETE = {WarningCode.AUDIO_INCOMPLETE.value}
DAMAGED = {WarningCode.AUDIO_DAMAGED.value}

# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["flac", "mp3", "ogg"])
def test_damage_in_the_middle_is_skipped(speech: Samples, container: str) -> None:
    whole = encoded(np.tile(speech, 5), container)
    middle = len(whole) // 2
    damaged = whole[:middle] + np.random.default_rng(1).bytes(500) + whole[middle + 500 :]
    heard, intact = read(damaged)[0], read(whole)[0]
    assert len(intact) * 0.8 < len(heard) <= len(intact) * 1.01
    assert np.array_equal(heard[: RATE * 5], intact[: RATE * 5])
    # faster-whisper's decoding ends at the first damage.
    assert heard[-RATE:].std() == pytest.approx(intact[-RATE:].std(), rel=0.05)


def fragmented(samples: Samples) -> bytes:
    whole = encoded(samples, "mp4", "aac")
    return remuxed(io.BytesIO(whole), "mp4", movflags="empty_moov", frag_duration="1000000")


@pytest.mark.parametrize("share", [0.2, 0.6])
@pytest.mark.parametrize("rubbish", [os.urandom, bytes])
def test_reading_resumes_behind_damaged_fragments(
    longer: Samples, share: float, rubbish: type[bytes]
) -> None:
    data = fragmented(longer)
    intact, opened = read(data)
    assert opened.warnings == []
    start, length = int(len(data) * share), len(data) // 50
    samples, opened = read(data[:start] + rubbish(length) + data[start + length :])
    assert DAMAGED <= codes(opened) <= DAMAGED | INCOMPLETE
    # All is in its place, with silence for what is lost: two fragments of a second at the most.
    assert len(samples) == pytest.approx(len(intact), abs=0.3 * RATE)
    assert np.mean(np.abs(samples[: len(intact)] - intact[: len(samples)]) > 1e-3) < 0.25


def test_reading_resumes_behind_damaged_fragment_headers(longer: Samples) -> None:
    """FFmpeg looks at all of them when it opens the file, and refuses it."""
    data = fragmented(np.tile(longer, 3))
    intact, _ = read(data)
    places = [match.start() for match in re.finditer(b"tfhd", data)]
    damaged = bytearray(data)
    for place in (places[3], places[-3]):
        damaged[place : place + 4] = b"\xff\xee\xdd\xcc"
    # A run of more packets than FFmpeg can allocate is a damaged number.
    run = [match.end() for match in re.finditer(b"trun", data)][3] + 4
    for each in (bytes(damaged), data[:run] + b"\xff" * 4 + data[run + 4 :]):
        samples, opened = read(each)
        assert codes(opened) == DAMAGED
        assert len(samples) == len(intact)


def test_fragments_are_read_once_wherever_their_samples_are(longer: Samples) -> None:
    data = bytearray(fragmented(longer))
    places = [match.end() + 8 for match in re.finditer(b"tfhd", data)]
    for place in places[1:]:
        data[place : place + 8] = data[places[0] : places[0] + 8]
    assert len(read(bytes(data))[0]) < len(longer) + RATE
    # The same with a place behind which FFmpeg sees nothing.
    moofs = [match.start() - 4 for match in re.finditer(b"moof", data)]
    data[moofs[5] : moofs[5] + 100] = bytes(100)
    assert len(read(bytes(data))[0]) < len(longer) + RATE


# --- chains ---------------------------------------------------------------------------------------

CHAINS: dict[str, tuple[tuple[str, int], ...]] = {
    # The second file is of another codec or rate.
    "adts": (("aac", 44_100), ("aac", 16_000)),
    "flac": (("flac", 16_000), ("flac", 44_100)),
    "matroska": (("aac", 48_000), ("libmp3lame", 44_100)),
    "mp3": (("libmp3lame", 44_100), ("libmp3lame", 22_050)),
    "mp4": (("aac", 48_000), ("aac", 16_000)),
    "mpegts": (("mp2", 48_000), ("aac", 48_000)),
    "tta": (("tta", 44_100), ("tta", 22_050)),
    "wav": (("pcm_s16le", 16_000), ("pcm_s16le", 44_100)),
    **{
        container: (KINDS[container],) * 2
        for container in ["ogg", "aiff", "au", "caf", "w64", "flv", "wv"]
    },
}


@pytest.mark.parametrize(("container", "kinds"), CHAINS.items())
def test_chain_is_read_whole(
    longer: Samples, container: str, kinds: tuple[tuple[str, int], ...]
) -> None:
    parts = [encoded(longer, container, *kind) for kind in kinds]
    samples, _ = read(b"".join(parts))
    expected = sum(len(read(part)[0]) for part in parts)
    assert len(samples) == pytest.approx(expected, abs=0.15 * RATE)
    assert samples[-2 * RATE :].std() == pytest.approx(longer[-2 * RATE :].std(), rel=0.1)


def pages(data: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(data):
        count = data[at + 26]
        end = at + 27 + count + sum(data[at + 27 : at + 27 + count])
        yield at, end
        at = end


def opus_of(channels: int, speech: Samples) -> bytes:
    """Opus whose header claims so many channels: each coded frame has its own number."""
    data = bytearray(encoded(speech, "ogg"))
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


def test_chain_may_change_its_channels(speech: Samples) -> None:
    opus = opus_of(1, speech), opus_of(2, speech)
    # The tag in front is FFmpeg's to skip.
    tag = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
    flac = tag + encoded(speech, "flac"), stereo(speech, speech, "flac", "flac", 44_100)
    for one, other in (opus, flac):
        both, opened = read(one + other)
        assert opened.warnings == []
        assert np.array_equal(both, np.concatenate((read(one)[0], read(other)[0])))


def test_unreadable_link_is_no_end(speech: Samples) -> None:
    data = encoded(speech, "ogg")
    with pytest.raises(BadAudio):
        read(data + data.replace(b"OpusHead", b"OpusHeap"))


def test_link_that_is_cut_short_does_not_hide_the_next(longer: Samples) -> None:
    one = encoded(longer, "ogg")
    other = encoded(longer, "ogg", "libopus", 16_000)
    begin, end = list(pages(one))[-2]
    samples, opened = read(one[: (begin + end) // 2] + other)
    assert codes(opened) & INCOMPLETE
    assert len(samples) > 1.5 * len(longer)
    half = len(longer) // 2
    assert np.array_equal(samples[-half:], read(other)[0][-half:])


def test_live_matroska_is_followed_by_another(speech: Samples) -> None:
    """Its segment has an unknown size."""
    data = encoded(speech, "matroska")
    place = data.index(b"\x18\x53\x80\x67") + 4
    live = data[:place] + b"\x01" + b"\xff" * 7 + data[place + 8 :]
    assert len(read(live + data)[0]) == pytest.approx(2 * len(speech), abs=0.3 * RATE)


def test_more_files_than_are_read_are_no_end(
    speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asrd.engine.audio.sections._MOST", 2)
    monkeypatch.setattr("asrd.engine.audio.layout.MAX_LINKS", 3)
    samples, opened = read(encoded(speech, "wav") * 5)
    assert len(samples) == 3 * len(speech)
    assert codes(opened) == INCOMPLETE
    for container in ("ogg", "mp4", "flac"):
        data = encoded(speech, container)
        assert read(data * 3)[1].warnings == []
        with pytest.raises(BadAudio, match="more than 3 files"):
            read(data * 4)
