"""Two ways to the same transcript: a real daemon, and faster-whisper in this process.

Both use int8 (asrd by default), one thread, exact features and, unless a test gives another, one
temperature: the higher ones are sampled at random.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faster_whisper import WhisperModel

from asrd import Client
from asrd.client.attempts import JobOptions
from asrd.wire.client_events import Transcript
from tests.support.daemons import Daemon
from tests.support.exact import make_exact

# faster-whisper's encoder always sees 30 s.
FULL: dict[str, Any] = {"window": "full"} if "window" in JobOptions.__annotations__ else {}
_CONFIG = """
[front]
queue_max = 4
[worker]
device = "cpu"
cpu_threads = 1
"""
# A transcript of five minutes on a busy machine.
_PATIENCE = 300.0


class _ExactDaemon(Daemon):
    program = ("-m", "tests.support.changed", "tests.support.real.exactly")


@dataclass(frozen=True)
class RealDaemon:
    """`asrd run` with a worker for each model; `models` maps their names to their directories."""

    process: Daemon
    models: dict[str, Path]

    def transcribe(self, audio: Any, model: str | None = "base", **options: Any) -> Transcript:
        """Transcribes with one model, or with `model=None` on the worker that the front chooses."""
        name = None if model is None else str(self.models[model])
        options = {"temperature": 0.0, "timeout": _PATIENCE, **FULL, **options}
        with Client(self.process.socket) as client:
            return client.transcribe(audio, model=name, **options)

    def worker_of(self, model: str) -> str:
        return str(list(self.models).index(model))


@contextmanager
def real_daemon(directory: Path, models: dict[str, Path]) -> Iterator[RealDaemon]:
    for number, path in enumerate(models.values()):
        (directory / f"worker-{number}.toml").write_text(f"model = '{path}'\n")
    count = str(len(models))
    with _ExactDaemon(directory, "--workers", count, config=_CONFIG) as process:
        process.wait_until_ready(*map(str, range(len(models))))
        yield RealDaemon(process, models)


@dataclass(frozen=True)
class Found:
    """A transcript of faster-whisper; `starts` are its segments', in seconds."""

    text: str
    language: str
    probability: float
    starts: list[float]


class Library:
    """faster-whisper in this process."""

    def __init__(self, path: Path) -> None:
        self._model = WhisperModel(str(path), device="cpu", compute_type="int8", cpu_threads=1)
        make_exact(self._model.feature_extractor)

    def transcribe(self, audio: Any, **options: Any) -> Found:
        """Transcribes samples of 16 kHz, or the file with this path."""
        given = str(audio) if isinstance(audio, Path) else audio
        found, info = self._model.transcribe(given, **{"temperature": 0.0, **options})
        segments = list(found)
        return Found(
            "".join(segment.text for segment in segments).strip(),
            info.language,
            info.language_probability,
            [segment.start for segment in segments],
        )
