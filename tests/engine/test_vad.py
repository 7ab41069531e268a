"""The speech found in blocks has the samples and times that faster-whisper finds in the whole."""

import itertools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
from faster_whisper.transcribe import Segment, Word, restore_speech_timestamps
from faster_whisper.vad import SpeechTimestampsMap, VadOptions, get_speech_timestamps, get_vad_model
from hypothesis import given
from hypothesis import strategies as st

from asrd.demo import samples
from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.vad import SpeechFilter, SpeechMap, Vad
from tests.support.sounds import blocks, noise, sample, silence


@pytest.fixture(scope="module")
def vad() -> Vad:
    return Vad(get_vad_model().session)


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
    vad: Vad, utterances: list[Samples], seed: int, length: int
) -> None:
    whole = conversation(utterances, seed)
    chunks = get_speech_timestamps(whole)
    found = SpeechFilter(blocks(whole, length), vad)
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


def test_times_in_an_open_chunk_are_known(vad: Vad) -> None:
    speech = sample("en-several.wav")
    found = SpeechFilter(iter([silence(5), speech[:RATE], speech[RATE:]]), vad)
    parts = iter(found)
    assert not len(next(parts))
    assert len(next(parts))
    assert found.map.original(1.0) == pytest.approx(6.0, abs=0.4)


@pytest.mark.parametrize("count", [0, 1, 512, 160_000])
def test_silence_gives_no_speech(vad: Vad, count: int) -> None:
    found = SpeechFilter(blocks(silence(count / RATE), 1000), vad)
    assert sum(map(len, found)) == 0
    assert found.map.original(1.5) == 1.5


STEP = 512


class Played:
    """A session of the VAD's model that gives known probabilities."""

    def __init__(self, probabilities: list[float]) -> None:
        self._left = iter(probabilities)

    def run(self, outputs: None, inputs: dict[str, Any]) -> Any:
        count = len(inputs["input"])
        return np.array(list(itertools.islice(self._left, count))), inputs["h"], inputs["c"]


# Stretches of speech, of doubt and of silence, and single steps of anything.
stretches = st.lists(
    st.tuples(st.sampled_from([0.0, 0.2, 0.36, 0.45, 0.5, 0.7, 1.0]), st.integers(1, 40)),
    max_size=40,
)
options = st.builds(
    VadOptions,
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
    neg_threshold=st.sampled_from([None, 0.0, 0.1, 0.45, 0.6]),
    min_speech_duration_ms=st.sampled_from([0, 33, 250, 1000, 60_000]),
    max_speech_duration_s=st.sampled_from([float("inf"), 1.0, 2.5, 7.0]),
    min_silence_duration_ms=st.sampled_from([0, 1, 64, 160, 500, 2000]),
    speech_pad_ms=st.sampled_from([0, 1, 30, 100, 400, 3000]),
)


@given(stretches, options, st.integers(0, STEP - 1), st.sampled_from([700, 5_000, 160_000]))
def test_any_probabilities_and_options_give_the_same_chunks(
    parts: list[tuple[float, int]], options: VadOptions, rest: int, block: int
) -> None:
    probabilities = [value for value, count in parts for _ in range(count)]
    # Each sample is its own number. The last step is padded, and judged, too.
    whole = np.arange(max(0, len(probabilities) - 1) * STEP + rest, dtype=np.float32)
    probabilities = probabilities or [0.9]
    with mock.patch("faster_whisper.vad.get_vad_model", return_value=lambda _: probabilities):
        chunks = get_speech_timestamps(whole, options)
    found = SpeechFilter(blocks(whole, block), Vad(Played(probabilities), options))
    speech = np.concatenate([silence(0), *found])
    expected = [whole[chunk["start"] : chunk["end"]] for chunk in chunks]
    assert np.array_equal(speech, np.concatenate([silence(0), *expected]))
    assert vars(found.map) == vars(found.map) | vars(SpeechTimestampsMap(chunks, RATE))


def test_long_speech_is_not_kept() -> None:
    """Without a longest speech, all of it is returned at once; else what may be split is kept."""

    def most(**changes: Any) -> float:
        pause = [0.0] * 5
        speech = ([1.0] * 300 + pause) * 60
        found = SpeechFilter(
            blocks(silence(len(speech) * STEP / RATE), RATE),
            Vad(Played([*speech, 0.0]), VadOptions(**changes)),
        )
        return max(len(found._held) for _ in found) / RATE

    assert most() < 2
    assert most(max_speech_duration_s=60) < 13


def test_long_silence_is_not_kept(vad: Vad) -> None:
    kept = []

    def minutes() -> Iterator[Samples]:
        for _ in range(20):
            yield silence(30)
            kept.append(len(found._held))

    found = SpeechFilter(minutes(), vad)
    assert sum(map(len, found)) == 0
    assert max(kept) < RATE
