"""The speech found in blocks has the samples and times that faster-whisper finds in the whole."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from faster_whisper.transcribe import Segment, Word, restore_speech_timestamps
from faster_whisper.vad import get_speech_timestamps, get_vad_model

from asrd.demo import samples
from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.vad import SpeechFilter, SpeechMap
from tests.support.sounds import blocks, noise, sample, silence


@pytest.fixture(scope="module")
def session() -> Any:
    return get_vad_model().session


@pytest.fixture(scope="module")
def utterances() -> list[Samples]:
    return [sample(each.name) for each in samples() if each.seconds < 30]


def conversation(utterances: list[Samples], seed: int) -> Samples:
    """Utterances of different loudness between pauses of different length and noise."""
    random = np.random.default_rng(seed)
    parts = [silence(random.uniform(0, 3))]
    for _ in range(random.integers(1, 10)):
        parts.append(utterances[random.integers(len(utterances))] * random.uniform(0.1, 1))
        parts.append(noise(random.uniform(0, 6), float(random.choice([0, 1e-4, 1e-2]))))
    joined = np.concatenate(parts).astype(np.float32)
    # Every third ends on a whole step of the model, and every fourth in the middle of speech.
    if seed % 3 == 0:
        joined = joined[: len(joined) // 512 * 512]
    return joined[: len(joined) - RATE * 4] if seed % 4 == 0 else joined


@pytest.mark.parametrize("length", [100, 16_000])
@pytest.mark.parametrize("seed", range(8))
def test_speech_is_what_faster_whisper_finds(
    session: Any, utterances: list[Samples], seed: int, length: int
) -> None:
    whole = conversation(utterances, seed)
    chunks = get_speech_timestamps(whole)
    found = SpeechFilter(blocks(whole, length), session)
    speech = np.concatenate([silence(0), *found])
    expected = [whole[chunk["start"] : chunk["end"]] for chunk in chunks]
    assert np.array_equal(speech, np.concatenate([silence(0), *expected]))
    for seconds in np.arange(0, len(speech) / RATE + 1, 0.25):
        assert restored(found.map, seconds, seconds + 0.5) == theirs(chunks, seconds, seconds + 0.5)


def segment(start: float, end: float, words: list[Word] | None = None) -> Segment:
    return Segment(1, 0, start, end, "", [], 0.0, 0.0, 0.0, words, 0.0)


def words(start: float, end: float) -> list[Word]:
    middle = (start + end) / 2
    return [Word(start, middle, "a", 1.0), Word(middle, end, "b", 1.0)]


def restored(map_: SpeechMap, start: float, end: float) -> list[Segment]:
    segments = [segment(start, end), segment(start, end, words(start, end))]
    for each in segments:
        map_.restore(each)
    return segments


def theirs(chunks: list[dict[str, int]], start: float, end: float) -> list[Segment]:
    segments = [segment(start, end), segment(start, end, words(start, end))]
    return list(restore_speech_timestamps(segments, chunks, RATE))


def test_times_in_an_open_chunk_are_known(session: Any) -> None:
    speech = sample("en-several.wav")
    found = SpeechFilter(iter([silence(5), speech[:RATE], speech[RATE:]]), session)
    parts = iter(found)
    assert not len(next(parts))
    assert len(next(parts))
    assert found.map.original(1.0) == pytest.approx(6.0, abs=0.4)


@pytest.mark.parametrize("count", [0, 1, 512, 160_000])
def test_silence_gives_no_speech(session: Any, count: int) -> None:
    found = SpeechFilter(blocks(silence(count / RATE), 1000), session)
    assert sum(map(len, found)) == 0
    assert found.map.original(1.5) == 1.5


def test_long_silence_is_not_kept(session: Any) -> None:
    kept = []

    def minutes() -> Iterator[Samples]:
        for _ in range(20):
            yield silence(30)
            kept.append(len(found._held))

    found = SpeechFilter(minutes(), session)
    assert sum(map(len, found)) == 0
    assert max(kept) < RATE
