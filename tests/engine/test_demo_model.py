"""The demo model through faster-whisper alone: the daemon can be no better than these figures.

`pytest -s` prints the measurements; packaging/demo-model/evaluate.py measures more. The bounds
leave room for the rounding of other CPUs, which changes a word or two: one of the few foreign words
is already 2 %.
"""

from typing import Any

import pytest
from faster_whisper import WhisperModel

from asrd.demo import MODEL, SAMPLES, samples
from tests.support.speech import SAMPLE_RATE, Recording, load, recordings, spoken, word_error_rate


@pytest.fixture(scope="module")
def model() -> WhisperModel:
    return WhisperModel(str(MODEL), device="cpu", compute_type="int8", cpu_threads=2)


def transcribe(model: WhisperModel, audio: Any, **options: Any) -> str:
    segments, _ = model.transcribe(audio, **options)
    return "".join(segment.text for segment in segments)


# No change of asrd's code can change them.
@pytest.mark.real
@pytest.mark.parametrize(
    ("clips", "options", "bound"),
    [
        (spoken("en"), {}, 0.03),
        (spoken("es"), {}, 0.07),
        (spoken("de"), {}, 0.07),
        (spoken("es") + spoken("de"), {"task": "translate"}, 0.09),
    ],
    ids=["English", "Spanish", "German", "translation"],
)
def test_phrases_have_a_low_word_error_rate(
    model: WhisperModel, clips: list[Recording], options: dict[str, Any], bound: float
) -> None:
    wrong = words = 0
    for clip in clips:
        said = clip.translation or "" if options else clip.text
        heard = transcribe(model, clip.audio, language=clip.language, beam_size=1, **options)
        edits, count = word_error_rate(said, heard)
        wrong, words = wrong + edits, words + count
    print(f"WER {wrong / words:.2%} ({wrong} of {words} words)")
    assert wrong / words <= bound


def test_silence_gives_no_text(model: WhisperModel) -> None:
    clips = spoken(None)
    assert [transcribe(model, clip.audio) for clip in clips] == [""] * 3
    assert transcribe(model, clips[0].audio, language="en", without_timestamps=True) == ""


def test_package_has_the_model_and_the_samples() -> None:
    files = ["config", "preprocessor_config", "tokenizer", "vocabulary"]
    expected = {"model.bin", *(f"{name}.json" for name in files)}
    assert {path.name for path in MODEL.iterdir()} == expected
    names = {sample.name for sample in samples()}
    assert {path.name for path in SAMPLES.iterdir()} == {"references.jsonl", *names}
    assert (MODEL.parent / "README.md").is_file()
    packaged = [*MODEL.iterdir(), *SAMPLES.iterdir()]
    assert sum(path.stat().st_size for path in packaged) < 6_000_000


def test_references_have_the_right_length() -> None:
    known = [(r.path, r.seconds) for r in recordings()] + [(s.path, s.seconds) for s in samples()]
    for path, seconds in known:
        assert len(load(path)) / SAMPLE_RATE == pytest.approx(seconds, abs=0.001)
