"""The spectrogram of a recording that is still being read equals that of the whole."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from asrd.audio import RATE, Samples
from asrd.windows import BLOCK_SECONDS, READ_AHEAD_SECONDS, LogMel
from tests.sounds import noise, sample

WINDOW = 3000


@pytest.fixture(scope="module")
def extractor() -> Any:
    return FeatureExtractor()


@pytest.fixture(scope="module")
def minute() -> Samples:
    return sample("en-minute.flac")


def in_blocks(samples: Samples, length: int = RATE) -> Iterator[Samples]:
    for start in range(0, len(samples), length):
        yield samples[start : start + length]


def features(samples: Samples, extractor: Any, length: int = RATE) -> LogMel:
    return LogMel(in_blocks(samples, length), extractor, lambda frame: None, BLOCK_SECONDS)


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
    mel = LogMel(in_blocks(samples), extractor, lambda frame: None)
    assert mel.shape == whole.shape
    for seek in range(0, whole.shape[1], 777):
        window = mel[:, seek : seek + WINDOW]
        assert same(window, whole[:, seek : seek + WINDOW])


@pytest.mark.parametrize("count", [1, 40, 159, 160, 161, 399, 400, 401])
def test_a_recording_shorter_than_one_frame_is_no_exception(extractor: Any, count: int) -> None:
    samples = noise(1, 0.1)[:count]
    assert same(features(samples, extractor)[:, :WINDOW], extractor(samples))


@pytest.mark.parametrize("length", [RATE // 3, RATE * 10, RATE * 33])
def test_a_long_recording_gives_the_same_once_its_peak_was_heard(
    extractor: Any, minute: Samples, length: int
) -> None:
    # The loudest place lies in the first block.
    samples = np.concatenate((minute, minute * np.float32(0.5), minute * np.float32(0.9)))
    whole = extractor(samples)
    mel = features(samples, extractor, length)
    for seek in range(0, whole.shape[1], 1234):
        window = mel[..., seek : seek + WINDOW]
        assert same(window, whole[:, seek : seek + WINDOW])


def test_before_the_peak_only_the_floor_of_silence_differs(extractor: Any, minute: Samples) -> None:
    samples = np.concatenate((minute * np.float32(0.1), noise(60, 1e-6), minute))
    whole = extractor(samples)
    window = features(samples, extractor)[:, :WINDOW]
    floor = whole.max() - 2
    assert same(np.maximum(window, floor), whole[:, :WINDOW])
    assert window.min() < floor - 0.1


@pytest.mark.parametrize("seconds", [59.9, 60, 60.1, 75.003, 120, 150.5, 3 * 60])
def test_the_length_is_known_in_the_end(extractor: Any, seconds: float) -> None:
    samples = noise(seconds)
    assert content_frames(features(samples, extractor)) == extractor(samples).shape[1] - 1


def test_it_reads_no_further_than_it_is_asked(extractor: Any) -> None:
    read = 0

    def hour() -> Iterator[Samples]:
        nonlocal read
        for _ in range(3600):
            read += 1
            yield noise(1)

    mel = LogMel(hour(), extractor, lambda frame: None)
    content = mel.shape[-1] - 1
    assert read == READ_AHEAD_SECONDS + 1
    assert content - 0 > WINDOW
    assert mel[:, :WINDOW].shape == (80, WINDOW)
    assert read == READ_AHEAD_SECONDS + 1
    assert content - 100 * READ_AHEAD_SECONDS > WINDOW
    assert read == READ_AHEAD_SECONDS + BLOCK_SECONDS + 1


def test_what_lies_behind_is_forgotten(extractor: Any) -> None:
    mel = features(noise(600), extractor)
    content, seek, kept = mel.shape[-1] - 1, 0, []
    while content > seek:
        size = min(WINDOW, content - seek)
        mel[:, seek : seek + size]
        kept.append(mel._frames.shape[1])
        seek += size
    assert seek == 60_000
    assert max(kept) < 100 * (2 * BLOCK_SECONDS + 40)


def test_each_window_is_told_before_it_is_read(extractor: Any, minute: Samples) -> None:
    told: list[int] = []
    mel = LogMel(in_blocks(minute), extractor, told.append)
    mel[..., 0:][..., :WINDOW]
    mel[:, 2000:5000]
    assert told == [0, 2000]


def test_what_a_listener_raises_comes_out(extractor: Any, minute: Samples) -> None:
    def stop(frame: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        LogMel(in_blocks(minute), extractor, stop)[:, :WINDOW]


def test_the_bands_are_the_models(minute: Samples) -> None:
    large = FeatureExtractor(feature_size=128)
    assert same(features(minute, large)[:, :WINDOW], large(minute)[:, :WINDOW])


def test_the_blocks_in_which_it_came_do_not_show(extractor: Any, minute: Samples) -> None:
    # To the last bit, and with the peak where the second reading begins.
    samples = np.concatenate((minute * np.float32(0.3), minute[: RATE * 2], minute))
    by_length = [
        features(samples, extractor, length)[:, 1000 : 1000 + WINDOW]
        for length in (4321, RATE, RATE * 7, len(samples))
    ]
    for one, other in pairwise(by_length):
        assert np.array_equal(one, other)
