"""The spectrogram of a recording that is still being read equals that of the whole."""

import hashlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from faster_whisper import WhisperModel
from faster_whisper.feature_extractor import FeatureExtractor

from asrd.engine import logmel
from asrd.engine.audio.reader import BLOCK_SECONDS, RATE, Samples
from asrd.engine.logmel import LogMel
from asrd.engine.peak import READ_AHEAD_SECONDS, search
from tests.support.engine_jobs import count_calls
from tests.support.sounds import blocks, noise

WINDOW = 3000
# sha256 of the source of the methods that use features.
KNOWN_SOURCE = {
    "transcribe": "088f59ce1c3f6fb6d39e212429951e314cee52fc3a9e18c8272b3ec2a582dca3",
    "detect_language": "fc6cd6d19d6b35027b97ac172984b96c000a58ddf958b78562d0a679a9a960f1",
    "generate_segments": "d6594a8b7ab423353af9b464b5383f3d04e8e692d0c8cef89fe640b9123a6be9",
}


@pytest.mark.parametrize("method", KNOWN_SOURCE)
def test_faster_whisper_uses_features_as_before(method: str) -> None:
    """A failure means: compare the method's use of features with the docstrings of LogMel."""
    source = inspect.getsource(getattr(WhisperModel, method))
    assert hashlib.sha256(source.encode()).hexdigest() == KNOWN_SOURCE[method]


@pytest.fixture(scope="module")
def extractor() -> Any:
    return FeatureExtractor()


def features(
    samples: Samples,
    extractor: Any,
    length: int = BLOCK_SECONDS * RATE,
    on_window: Callable[[int], None] = lambda frame: None,
) -> LogMel:
    return LogMel(blocks(samples, length), extractor.mel_filters, on_window)


def searched(samples: Samples, extractor: Any) -> LogMel:
    """The same after the search for the loudest place."""
    mel = features(samples, extractor)
    if mel.read_ahead():
        count = READ_AHEAD_SECONDS // BLOCK_SECONDS
        mel.raise_peak(
            search(blocks(samples, BLOCK_SECONDS * RATE), count, extractor.mel_filters, mel.peak)
        )
    return mel


def same(one: Any, other: Any) -> bool:
    """To the last bit in one thread; the number of threads of a matrix product may change it."""
    return np.allclose(one, other, rtol=0, atol=2e-6)


def windows(mel: LogMel) -> Iterator[tuple[int, Any]]:
    """Each window and the frame after it, requested as faster-whisper's loop does."""
    content, seek = mel.shape[-1] - 1, 0
    while content > seek:
        start, seek = seek, seek + min(WINDOW, content - seek)
        yield seek, mel[:, start:seek]


@pytest.mark.parametrize("seconds", [0, 0.01, 0.013, 29.99, 30, 30.01, 60.01, 300])
def test_recording_that_is_read_ahead_gives_the_same_numbers(
    extractor: Any, minute: Samples, seconds: float
) -> None:
    # The loudest place is at the end.
    samples = np.concatenate((np.tile(minute * np.float32(0.1), 5), minute))[::-1]
    samples = samples[: round(seconds * RATE)][::-1]
    whole = extractor(samples)
    ends = [0, *(end for end, _ in windows(features(samples, extractor, RATE)))]
    assert ends[-1] == whole.shape[1] - 1
    mel = searched(samples, extractor)
    for seek in range(0, whole.shape[1], 777):
        window = mel[:, seek : seek + WINDOW]
        assert same(window, whole[:, seek : seek + WINDOW])


@pytest.mark.parametrize("count", [1, 159, 160, 161, 399, 400, 401])
def test_recording_shorter_than_one_frame_is_no_exception(extractor: Any, count: int) -> None:
    samples = noise(1, 0.1)[:count]
    assert same(features(samples, extractor)[:, :WINDOW], extractor(samples))


@pytest.mark.parametrize("length", [RATE // 3, RATE * 7])
def test_numbers_are_the_same_once_the_peak_was_read(
    extractor: Any, minute: Samples, length: int
) -> None:
    # The loudest place is in the first minute; shorter blocks reach less far ahead.
    samples = np.concatenate((minute, minute * np.float32(0.5), minute * np.float32(0.9)))
    whole = extractor(samples)
    mel = features(samples, extractor, length)
    for seek in range(6000, whole.shape[1], 1234):
        window = mel[..., seek : seek + WINDOW]
        assert same(window, whole[:, seek : seek + WINDOW])


def test_before_the_peak_only_the_floor_differs(extractor: Any, minute: Samples) -> None:
    samples = np.concatenate((minute * np.float32(0.1), noise(60, 1e-6), minute))
    whole = extractor(samples)
    window = features(samples, extractor, RATE)[:, :WINDOW]
    floor = whole.max() - 2
    assert same(np.maximum(window, floor), whole[:, :WINDOW])
    assert window.min() < floor - 0.1


def test_empty_blocks_are_skipped(extractor: Any, minute: Samples) -> None:
    # The VAD yields them.
    nothing, samples = noise(0), minute[: RATE * 4]
    parts = [nothing, samples[:100], nothing, nothing, samples[100:40_000], nothing]
    parts += [samples[40_000:], nothing, nothing]
    mel = LogMel(parts, extractor.mel_filters, lambda frame: None)
    assert same(mel[:, :WINDOW], extractor(samples))


def test_reads_no_further_than_it_is_asked(extractor: Any) -> None:
    read = 0

    def hour() -> Iterator[Samples]:
        nonlocal read
        for _ in range(120):
            read += 1
            yield noise(30)

    mel = LogMel(hour(), extractor.mel_filters, lambda frame: None)
    content = mel.shape[-1] - 1
    assert content - 0 > WINDOW
    # A window of one block and a second of the next; one more, to know whether there is one more.
    assert read == 3
    assert mel[:, :WINDOW].shape == (mel.shape[0], WINDOW) == (80, WINDOW)
    assert read == 3
    assert content - WINDOW > WINDOW
    assert read == 4


def test_finished_windows_are_forgotten(extractor: Any) -> None:
    mel = features(noise(300), extractor, RATE)
    kept = [mel._frames.shape[1] for _ in windows(mel)]
    assert len(kept) == 10
    assert max(kept) < 2 * WINDOW


def test_spectra_before_a_checkpoint_are_not_computed(
    extractor: Any, minute: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = np.concatenate((minute, minute * np.float32(0.1)))
    first = features(samples, extractor)
    for _ in windows(first):
        pass
    computed = count_calls(monkeypatch, logmel, "mel_power")
    parts = blocks(samples, BLOCK_SECONDS * RATE)
    mel = LogMel(parts, extractor.mel_filters, lambda frame: None, 9000, first.log_peak)
    window = mel[:, 9000 : 9000 + WINDOW]
    assert same(window, extractor(samples)[:, 9000 : 9000 + WINDOW])
    # Of 120 seconds, those from the window on, and the rest of its first block; 5 s each.
    assert len(computed) <= (30 + BLOCK_SECONDS) // 5


def test_each_window_is_reported_before_it_is_read(extractor: Any, minute: Samples) -> None:
    reports: list[int] = []
    mel = features(minute, extractor, RATE, reports.append)
    mel.window(0, WINDOW)
    mel[:, 2000:5000]
    assert reports == [0, 2000]


def test_bands_are_those_of_the_model(minute: Samples) -> None:
    large = FeatureExtractor(feature_size=128)
    assert same(searched(minute, large)[:, :WINDOW], large(minute)[:, :WINDOW])
