"""The spectrogram of a recording that is still being read equals that of the whole."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from asrd.engine.audio.reader import BLOCK_SECONDS, RATE, Samples
from asrd.engine.logmel import LogMel
from asrd.engine.peak import READ_AHEAD_SECONDS, search
from tests.support.sounds import noise, sample

WINDOW = 3000


@pytest.fixture(scope="module")
def extractor() -> Any:
    return FeatureExtractor()


@pytest.fixture(scope="module")
def minute() -> Samples:
    return sample("en-minute.flac")


def in_blocks(samples: Samples, length: int) -> Iterator[Samples]:
    for start in range(0, len(samples), length):
        yield samples[start : start + length]


def features(samples: Samples, extractor: Any, length: int = BLOCK_SECONDS * RATE) -> LogMel:
    return LogMel(in_blocks(samples, length), extractor.mel_filters, lambda frame: None)


def searched(samples: Samples, extractor: Any) -> LogMel:
    """The same once the loudest place of all was looked for."""
    mel = features(samples, extractor)
    if mel.read_ahead():
        blocks = in_blocks(samples, BLOCK_SECONDS * RATE)
        count = READ_AHEAD_SECONDS // BLOCK_SECONDS
        mel.hear_of(search(blocks, count, extractor.mel_filters, mel.peak))
    return mel


def same(one: Any, other: Any) -> bool:
    """To the last bit in one thread; how many threads a matrix product takes shows in the last."""
    return np.allclose(one, other, rtol=0, atol=2e-6)


def content_frames(mel: LogMel) -> int:
    """How many frames there are, asked as faster-whisper's loop asks."""
    content, seek = mel.shape[-1] - 1, 0
    while content > seek:
        seek += min(WINDOW, content - seek)
    return seek


@pytest.mark.parametrize("seconds", [0, 0.01, 0.013, 0.5, 29.99, 30, 30.01, 45, 60, 60.01, 300])
def test_a_recording_that_is_read_ahead_gives_the_same_numbers(
    extractor: Any, minute: Samples, seconds: float
) -> None:
    # The loudest place is at the end.
    samples = np.concatenate((np.tile(minute * np.float32(0.1), 5), minute))[::-1]
    samples = samples[: round(seconds * RATE)][::-1]
    whole = extractor(samples)
    assert content_frames(features(samples, extractor)) == whole.shape[1] - 1
    mel = searched(samples, extractor)
    for seek in range(0, whole.shape[1], 777):
        window = mel[:, seek : seek + WINDOW]
        assert same(window, whole[:, seek : seek + WINDOW])


@pytest.mark.parametrize("count", [1, 40, 159, 160, 161, 399, 400, 401])
def test_a_recording_shorter_than_one_frame_is_no_exception(extractor: Any, count: int) -> None:
    samples = noise(1, 0.1)[:count]
    assert same(features(samples, extractor)[:, :WINDOW], extractor(samples))


@pytest.mark.parametrize("length", [RATE // 3, RATE * 3, RATE * 7])
def test_a_longer_one_gives_the_same_once_its_peak_was_heard(
    extractor: Any, minute: Samples, length: int
) -> None:
    # The loudest place is in the first minute; shorter blocks are a shorter time ahead.
    samples = np.concatenate((minute, minute * np.float32(0.5), minute * np.float32(0.9)))
    whole = extractor(samples)
    mel = features(samples, extractor, length)
    for seek in range(6000, whole.shape[1], 1234):
        window = mel[..., seek : seek + WINDOW]
        assert same(window, whole[:, seek : seek + WINDOW])


def test_before_the_peak_only_the_floor_of_silence_differs(extractor: Any, minute: Samples) -> None:
    samples = np.concatenate((minute * np.float32(0.1), noise(60, 1e-6), minute))
    whole = extractor(samples)
    window = features(samples, extractor, RATE)[:, :WINDOW]
    floor = whole.max() - 2
    assert same(np.maximum(window, floor), whole[:, :WINDOW])
    assert window.min() < floor - 0.1


def test_empty_blocks_are_passed_over(extractor: Any, minute: Samples) -> None:
    # As the VAD gives them.
    nothing, samples = noise(0), minute[: RATE * 4]
    parts = [nothing, samples[:100], nothing, nothing, samples[100:40_000], nothing]
    blocks = [*parts, samples[40_000:], nothing, nothing]
    mel = LogMel(blocks, extractor.mel_filters, lambda frame: None)
    assert same(mel[:, :WINDOW], extractor(samples))
    assert mel.shape == extractor(samples).shape


@pytest.mark.parametrize("seconds", [29.99, 30, 30.01, 60, 75.003, 120, 150.5])
def test_the_length_is_known_in_the_end(extractor: Any, seconds: float) -> None:
    samples = noise(seconds)
    mel = features(samples, extractor, RATE)
    assert content_frames(mel) == extractor(samples).shape[1] - 1


def test_it_reads_no_further_than_it_is_asked(extractor: Any) -> None:
    read = 0

    def hour() -> Iterator[Samples]:
        nonlocal read
        for _ in range(120):
            read += 1
            yield noise(30)

    mel = LogMel(hour(), extractor.mel_filters, lambda frame: None)
    content = mel.shape[-1] - 1
    # A window of one block and a second of the next; one more, to know whether there is one more.
    assert read == 3
    assert content - 0 > WINDOW
    assert mel[:, :WINDOW].shape == (80, WINDOW)
    assert read == 3
    assert content - WINDOW > WINDOW
    assert read == 4


def test_what_lies_behind_is_forgotten(extractor: Any) -> None:
    mel = features(noise(300), extractor, RATE)
    content, seek, kept = mel.shape[-1] - 1, 0, []
    while content > seek:
        size = min(WINDOW, content - seek)
        mel[:, seek : seek + size]
        kept.append(mel._frames.shape[1])
        seek += size
    assert seek == 30_000
    assert max(kept) < 2 * WINDOW


def test_each_window_is_told_before_it_is_read(extractor: Any, minute: Samples) -> None:
    told: list[int] = []
    mel = LogMel(in_blocks(minute, RATE), extractor.mel_filters, told.append)
    mel[..., 0:][..., :WINDOW]
    mel[:, 2000:5000]
    assert told == [0, 2000]


def test_what_a_listener_raises_comes_out(extractor: Any, minute: Samples) -> None:
    def stop(frame: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        LogMel(in_blocks(minute, RATE), extractor.mel_filters, stop)[:, :WINDOW]


def test_the_bands_are_the_models(minute: Samples) -> None:
    large = FeatureExtractor(feature_size=128)
    assert same(searched(minute, large)[:, :WINDOW], large(minute)[:, :WINDOW])
