"""The benchmarks' model of random weights: the engine takes it, and it says what it is told to."""

from pathlib import Path

import pytest
from faster_whisper import WhisperModel

from asrd.engine.model_check import check
from tests.benchmarks.random_model import make
from tests.support.speech import long_recording


@pytest.mark.parametrize("compute_type", ["int8", "float32"])
def test_it_says_the_same_words_in_every_window(tmp_path: Path, compute_type: str) -> None:
    make("tiny", tmp_path, compute_type, tokens=3)
    facts = check(tmp_path)
    assert (facts.multilingual, facts.word_timestamps) == (True, True)
    model = WhisperModel(str(tmp_path), device="cpu", cpu_threads=1)
    audio, _ = long_recording(31)
    segments, info = model.transcribe(
        audio, beam_size=1, temperature=0.0, condition_on_previous_text=False
    )
    assert [segment.text for segment in segments] == [" 1 2 3", " 1 2 3"]
    assert info.language == "en"


def test_an_unknown_compute_type_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'int4' is none of int8"):
        make("tiny", tmp_path, "int4")
