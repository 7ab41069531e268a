"""Batches have the text of faster-whisper's batched pipeline, window by window as it is read."""

from typing import Any

import numpy as np
import pytest
from faster_whisper import BatchedInferencePipeline

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.whisper import WhisperEngine
from tests.support.engine_jobs import ENGLISH, Listener, transcribe
from tests.support.sounds import sample, silence


class Stop(Exception):
    pass


@pytest.mark.parametrize("word_timestamps", [False, True])
def test_text_is_that_of_the_pipeline(
    engine: WhisperEngine, minute: Samples, word_timestamps: bool
) -> None:
    options = {"chunk_length": 10, "batch_size": 2, "word_timestamps": word_timestamps}
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
