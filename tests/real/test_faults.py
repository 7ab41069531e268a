"""Real models in one daemon: a crash in the middle of a job, and the choice between models."""

import signal

import pytest

from tests.support.real.daemon import RealDaemon
from tests.support.real.speech import Clip, joined, sentences, word_error_rate

pytestmark = pytest.mark.real


def test_job_keeps_its_text_when_its_worker_crashes(
    daemon: RealDaemon, clips: dict[str, Clip]
) -> None:
    audio, said = joined(sentences(), 60)
    undisturbed = daemon.transcribe(audio, language="en")
    worker = daemon.worker_of("base")
    killed: list[float] = []

    def crash(progress: object) -> None:
        done = getattr(progress, "audio_seconds_done", 0.0)
        if not killed and done > 20:
            daemon.process.kill(worker, signal.SIGSEGV)
            killed.append(done)

    found = daemon.transcribe(audio, language="en", on_progress=crash)
    assert killed and killed[0] < 60
    assert (found.attempts, undisturbed.attempts) == (2, 1)
    assert found.text == undisturbed.text
    assert [each.start for each in found.segments] == [each.start for each in undisturbed.segments]
    assert word_error_rate([(said, found.text)]) <= 0.15


@pytest.mark.parametrize(("language", "model"), [(None, "base"), ("de", "base"), ("en", None)])
def test_model_that_knows_the_language_is_chosen(
    daemon: RealDaemon, clips: dict[str, Clip], language: str | None, model: str | None
) -> None:
    """A job without a language goes to the multilingual model, which can detect it."""
    daemon.process.wait_until_ready("0", "1")
    types = {worker["compute_type"] for worker in daemon.process.workers().values()}
    assert types == {"int8_float32"}
    found = daemon.transcribe(clips["cards-001.wav"].path, None, language=language)
    if model is not None:
        assert found.worker == daemon.worker_of(model)
    assert found.language == (language or "en")
    assert found.text
