"""A real daemon with real weights: `asrd run`, int8, one thread for each worker, exact features."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrd import Client
from asrd.wire.client_events import Transcript
from tests.support.daemons import Daemon
from tests.support.real.library import JOB

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
        options = {"timeout": _PATIENCE, **JOB, **options}
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
