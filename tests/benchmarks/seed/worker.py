"""The original design's worker process."""

from typing import Any

READY = -1


def work(model: str, jobs: Any, answers: Any) -> None:
    from faster_whisper import WhisperModel

    engine = WhisperModel(model, device="cpu", cpu_threads=1)
    answers.put((READY, ""))
    while True:
        number, audio = jobs.get()
        segments, _ = engine.transcribe(audio, beam_size=1, language="en", temperature=0.0)
        answers.put((number, "".join(segment.text for segment in segments)))
