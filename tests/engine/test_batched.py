"""Batches have the text of faster-whisper's batched pipeline, window by window as it is read."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from faster_whisper import BatchedInferencePipeline

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.batched import _Pipeline, windows_at_once
from asrd.engine.interface import Transcription
from asrd.engine.whisper import WhisperEngine
from tests.support.engine_jobs import ENGLISH, SETTINGS, Listener, transcribe
from tests.support.sounds import sample, silence


class Stop(Exception):
    pass


@pytest.mark.parametrize("word_timestamps", [False, True])
def test_text_is_that_of_the_pipeline(
    engine: WhisperEngine, minute: Samples, word_timestamps: bool
) -> None:
    options: dict[str, Any] = {"chunk_length": 10, "batch_size": 2}
    options["word_timestamps"] = word_timestamps
    pipeline = BatchedInferencePipeline(engine._model)
    found, _ = pipeline.transcribe(
        minute, language="en", beam_size=2, temperature=0.0, vad_filter=True, **options
    )
    theirs = [(each.id, each.text, each.start) for each in found]
    listener = Listener()
    ours = transcribe(engine, minute, ENGLISH, listener, temperature=0.0, **options)
    assert len(theirs) > 3
    assert [(each.id, each.text, each.start) for each in ours.segments] == theirs
    assert tuple(listener.segments) == ours.segments
    done = [seconds for seconds, _ in listener.progress]
    assert done == sorted(done)
    assert done[-1] > 30


def test_job_stops_between_two_batches(engine: WhisperEngine, minute: Samples) -> None:
    listener = Listener(Stop(), segments=2)
    with pytest.raises(Stop):
        transcribe(engine, minute, ENGLISH, listener, batch_size=2, chunk_length=10)
    # Where the first window begins.
    assert max(seconds for seconds, _ in listener.progress) < 1


def test_silence_has_no_text(engine: WhisperEngine) -> None:
    found = transcribe(engine, silence(20), ENGLISH, batch_size=4)
    assert (found.text, found.audio_seconds) == ("", 20)


def test_language_is_chosen_among_the_allowed_ones_for_each_window(engine: WhisperEngine) -> None:
    pause = silence(2)
    parts = [part for name in ("es-0.wav", "de-0.wav") for part in (sample(name), pause)]
    options: dict[str, Any] = {"language": None, "languages": ("es", "de"), "multilingual": True}
    found = transcribe(
        engine, np.concatenate(parts), ENGLISH, batch_size=2, chunk_length=4, **options
    )
    assert [each.language for each in found.segments] == ["es", "de"]
    one = transcribe(engine, sample("en-0.wav"), ENGLISH, language=None, languages=("es", "de"))
    assert one.language in ("es", "de")
    assert 0 < one.language_probability <= 1
    assert found.audio_seconds == pytest.approx(sum(map(len, parts)) / RATE)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of windows that the calls of the model decode."""
    sizes: list[int] = []
    forward = _Pipeline.forward

    def counting(self: _Pipeline, features: Any, *rest: Any) -> Any:
        sizes.append(len(features))
        return forward(self, features, *rest)

    monkeypatch.setattr(_Pipeline, "forward", counting)
    return sizes


def bounded(engine: WhisperEngine, most: int) -> WhisperEngine:
    """The same model with another `batch_size_max`."""
    settings = replace(SETTINGS, batch_size_max=most)
    return WhisperEngine(engine._model, settings, engine._arguments._facts)


@pytest.mark.parametrize(
    ("asked", "most", "beams", "expected"),
    [
        (64, 8, 1, 8),
        (64, 8, 5, 8),
        (4, 8, 5, 4),
        (64, 8, 6, 6),
        (64, 8, 32, 1),
        (64, 1, 32, 1),
        (64, 64, 32, 10),
        (2, 64, 32, 2),
    ],
)
def test_number_of_windows_at_once(asked: int, most: int, beams: int, expected: int) -> None:
    assert windows_at_once(asked, most, beams) == expected


def texts(found: Transcription) -> list[tuple[int, str, list[str]]]:
    """Number, text and words of each segment."""
    return [(each.id, each.text, [w.word for w in each.words or ()]) for each in found.segments]


def starts_and_ends(found: Transcription) -> list[float]:
    cues = [(each.start, each.end) for each in found.segments]
    for each in found.segments:
        cues += [(word.start, word.end) for word in each.words or ()]
    return list(itertools.chain(*cues))


@pytest.mark.parametrize(("most", "beams", "expected"), [(1, 2, 1), (3, 2, 3), (3, 8, 1)])
def test_large_batch_is_decoded_in_several_calls_with_the_same_text(
    engine: WhisperEngine, minute: Samples, calls: list[int], most: int, beams: int, expected: int
) -> None:
    options: dict[str, Any] = {"batch_size": 64, "chunk_length": 5, "beam_size": beams}
    options["word_timestamps"] = True
    audio = minute[: 35 * RATE]
    whole = transcribe(bounded(engine, 64), audio, ENGLISH, **options)
    (count,) = calls
    assert count > 5
    calls.clear()
    parts = transcribe(bounded(engine, most), audio, ENGLISH, **options)
    assert max(calls) == expected
    assert sum(calls) == count
    assert texts(parts) == texts(whole)
    # The model's arithmetic may round a time to the next of its steps.
    assert starts_and_ends(parts) == pytest.approx(starts_and_ends(whole), abs=0.021)


def test_job_stops_after_each_call_of_a_large_batch(
    engine: WhisperEngine, minute: Samples, calls: list[int]
) -> None:
    with pytest.raises(Stop):
        transcribe(
            bounded(engine, 2),
            minute,
            ENGLISH,
            Listener(Stop(), segments=1),
            batch_size=64,
            chunk_length=5,
        )
    assert calls == [2]


@pytest.mark.parametrize("segments", [1, 2])
def test_language_does_not_depend_on_the_windows_at_once(
    engine: WhisperEngine, minute: Samples, calls: list[int], segments: int
) -> None:
    options: dict[str, Any] = {
        "language": None,
        "language_detection_segments": segments,
        "language_detection_threshold": 1.0,
        "batch_size": 64,
        "chunk_length": 4,
    }
    audio = minute[: 20 * RATE]
    whole = transcribe(bounded(engine, 64), audio, ENGLISH, **options)
    assert calls[0] > 3
    parts = transcribe(bounded(engine, 1), audio, ENGLISH, **options)
    assert parts.language == whole.language
    assert parts.language_probability == whole.language_probability
    assert [each.text for each in parts.segments] == [each.text for each in whole.segments]
    assert set(calls[1:]) == {1}


def test_job_stops_between_two_windows_of_the_detection(
    engine: WhisperEngine, minute: Samples, calls: list[int]
) -> None:
    heard = Listener()
    options: dict[str, Any] = {"language": None, "batch_size": 64, "language_detection_segments": 2}
    options["language_detection_threshold"] = 1.0
    transcribe(engine, minute, ENGLISH, heard, **options)
    once = Listener()
    transcribe(engine, minute, ENGLISH, once, **{**options, "language_detection_segments": 1})
    # One turn encodes the window, one detects its language.
    assert len(heard.progress) == len(once.progress) + 2
