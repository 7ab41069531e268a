"""Options of faster-whisper do on real speech what they are for: each test fails without its
option. tests/engine/test_arguments.py has the way to faster-whisper, and refusals."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from faster_whisper.tokenizer import Tokenizer

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.whisper import WhisperEngine
from tests.support.engine_jobs import GREEDY, transcribe
from tests.support.real.library import ALIKE, library
from tests.support.real.speech import Clip
from tests.support.sounds import noise

pytestmark = pytest.mark.real

KENNEDY = "ask what you can do for your country"


@pytest.fixture
def speech(clips: dict[str, Clip]) -> Samples:
    return clips["jfk.flac"].audio


def test_answers_are_those_of_faster_whisper(tiny_en: WhisperEngine, speech: Samples) -> None:
    for options in (
        {"chunk_length": 5},
        {"prefix": "Hello there", "without_timestamps": True},
        {"max_new_tokens": 12},
        {"suppress_tokens": [-1, 11], "repetition_penalty": 1.2, "no_repeat_ngram_size": 3},
        {"length_penalty": 0.2, "patience": 2.0, "beam_size": 3},
        {"no_speech_threshold": 0.1, "log_prob_threshold": -0.2, "suppress_blank": False},
        {"word_timestamps": True, "append_punctuations": "", "max_initial_timestamp": 5.0},
    ):
        chosen: dict[str, Any] = {"language": "en", **options}
        theirs, _ = library(tiny_en, speech, **chosen)
        ours = transcribe(tiny_en, speech, ALIKE, **chosen)
        assert [each.text for each in ours.segments] == [each.text for each in theirs], options
        assert texts(ours.segments) == texts(theirs), options


def texts(segments: Any) -> list[str]:
    return [word.word for segment in segments for word in segment.words or ()]


def test_without_timestamps_a_window_is_one_segment(
    tiny_en: WhisperEngine, speech: Samples
) -> None:
    assert len(transcribe(tiny_en, speech).segments) > 1
    found = transcribe(tiny_en, speech, without_timestamps=True)
    assert [KENNEDY in each.text.casefold() for each in found.segments] == [True]


def test_prefix_begins_the_text_with_and_without_hints(
    tiny_en: WhisperEngine, speech: Samples
) -> None:
    given: list[dict[str, Any]] = [{}, {"hotwords": "Kennedy"}, {"initial_prompt": "Kennedy"}]
    for hints in given:
        found = transcribe(tiny_en, speech, prefix="And so my dear friends", **hints)
        assert found.text.startswith("And so my dear friends")
        assert KENNEDY in found.text.casefold()


def test_suppressed_token_does_not_occur(tiny_en: WhisperEngine, speech: Samples) -> None:
    encode = tiny_en._arguments.encode
    assert "country" in transcribe(tiny_en, speech).text
    suppressed = tuple({*encode(" country"), *encode(" Country"), *encode("country"), -1})
    assert "country" not in transcribe(tiny_en, speech, suppress_tokens=suppressed).text


@pytest.mark.parametrize("options", [{"no_repeat_ngram_size": 3}, {"repetition_penalty": 1.3}])
def test_loop_is_broken(tiny_en: WhisperEngine, options: dict[str, Any]) -> None:
    """Two clicks a second make the model repeat itself, if nothing stops it."""
    clicks = np.zeros(20 * RATE, np.float32)
    clicks[:: RATE // 2] = 0.5
    assert repetitions(transcribe(tiny_en, clicks).text) > 8
    assert repetitions(transcribe(tiny_en, clicks, **options).text) <= 2


def repetitions(text: str) -> int:
    """The number of occurrences of the most frequent four words in a row."""
    words = text.split()
    return max(Counter(zip(*(words[n:] for n in range(4)), strict=False)).values(), default=0)


def test_text_after_long_noise_is_not_doubled(tiny_en: WhisperEngine, speech: Samples) -> None:
    audio = np.concatenate((speech, noise(40, 0.005), speech))
    without = transcribe(tiny_en, audio, word_timestamps=True)
    assert "ask what you ask" in without.text
    found = transcribe(tiny_en, audio, word_timestamps=True, hallucination_silence_threshold=1.0)
    assert found.text.count(KENNEDY) == 2
    assert "ask what you ask" not in found.text


def test_thresholds_decide_what_is_silence(tiny_en: WhisperEngine, speech: Samples) -> None:
    assert not transcribe(tiny_en, speech, no_speech_threshold=0.0, log_prob_threshold=0.0).text
    assert transcribe(tiny_en, speech, no_speech_threshold=1.0, log_prob_threshold=0.0).text


def test_improbable_text_is_decoded_at_the_next_temperature(
    tiny_en: WhisperEngine, speech: Samples
) -> None:
    def temperature(**options: Any) -> float | None:
        return (
            transcribe(tiny_en, speech, temperature=(0.0, 0.2), **options).segments[0].temperature
        )

    assert temperature() == 0
    assert temperature(log_prob_threshold=-0.01) == 0.2
    assert temperature(compression_ratio_threshold=0.5) == 0.2


def test_tokens_decode_to_the_text(base: WhisperEngine, clips: dict[str, Clip]) -> None:
    found = transcribe(
        base, clips["french.aiff"].audio, GREEDY, language="fr", include_tokens=True
    ).segments
    decode = Tokenizer(base._model.hf_tokenizer, True, task="transcribe", language="fr").decode
    assert [decode(each.tokens) for each in found] == [each.text for each in found]
    assert all(0 <= (each.seek or 0) <= each.start * 100 for each in found)


def test_seek_counts_in_the_speech_alone(tiny_en: WhisperEngine, speech: Samples) -> None:
    audio = np.concatenate((np.zeros(40 * RATE, np.float32), speech))
    found = transcribe(tiny_en, audio, vad_filter=True, include_tokens=True).segments
    assert (found[0].seek, found[0].start > 39) == (0, True)
