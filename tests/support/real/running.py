"""One job of an engine in this process, as its client would get it."""

from typing import Any

from asrd.engine.audio.reader import Samples
from asrd.engine.interface import Transcription
from asrd.engine.whisper import WhisperEngine
from asrd.wire.records import AudioFormat, Options
from tests.support.sounds import memory_file


def transcribe(
    engine: WhisperEngine, audio: Samples | bytes, language: str | None = "en", **options: Any
) -> Transcription:
    """Samples of 16 kHz, or the bytes of a file."""
    format_ = AudioFormat("file" if isinstance(audio, bytes) else "pcm_f32le")
    data = audio if isinstance(audio, bytes) else audio.astype("<f4").tobytes()
    with (
        memory_file(data) as fd,
        engine.prepare(
            fd,
            format_,
            Options(language=language, **options),
            max_audio_seconds=3600,
            on_progress=lambda done, total: None,
        ) as prepared,
    ):
        return engine.run(prepared, lambda done, total: None, lambda segment: None)
