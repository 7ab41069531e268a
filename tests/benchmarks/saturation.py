"""A saturated worker, with and without reading the next job ahead, against a bare loop over the
same recordings in the caller's own process.

    python -m tests.benchmarks.saturation [--seconds S] [--jobs N]

Ways take turns in one run: each does the same jobs, and what counts is the ratio within each round.
Three clients keep the worker busy. One thread of inference, beam 1, English, temperature 0, no VAD;
the bare loop does what a program with faster-whisper does: decode the file, transcribe the array.
"""

import contextlib
import io
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from faster_whisper import WhisperModel
from faster_whisper.audio import decode_audio

from asrd import Client
from asrd.demo import MODEL
from tests.benchmarks import measure
from tests.benchmarks.measure import daemon, interleave, percentile, speech
from tests.support.sounds import encoded

_OPTIONS: dict[str, Any] = {"language": "en", "temperature": 0.0}
_BASE = "bare loop in process"
_WAYS = {"asrd": "true", "asrd, nothing read ahead": "false"}
# Container and codec for PyAV, by the common name.
_FORMATS = {"WAV": ("wav", "pcm_s16le"), "MP3": ("mp3", "mp3"), "Opus": ("ogg", "libopus")}
_CLIENTS = 3


def main() -> None:
    made = measure.parser(__doc__, 120)
    made.add_argument("--lengths", type=float, nargs="*", default=[5, 30])
    made.add_argument("--jobs", type=int, default=12, help="of each way in each round")
    arguments = made.parse_args()
    measure.use_worker_environment()
    print(measure.machine())
    cases = [(length, name) for length in arguments.lengths for name in _FORMATS]
    with contextlib.ExitStack() as stack:
        bench = _Bench(stack, arguments.jobs)
        rows = [
            row
            for length, name in cases
            for row in bench.measure(length, name, arguments.seconds / len(cases))
        ]
    header = ["recording", "way", "jobs/s, p50", "ratio to bare, paired p50", "its quartiles"]
    measure.table(f"One worker, {_CLIENTS} clients, {arguments.jobs} jobs a round", header, rows)


class _Bench:
    def __init__(self, stack: contextlib.ExitStack, jobs: int) -> None:
        self._jobs = jobs
        self._model = WhisperModel(str(MODEL), device="cpu", cpu_threads=1)
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._pool = stack.enter_context(ThreadPoolExecutor(_CLIENTS))
        self._clients = {
            name: [
                stack.enter_context(Client(path))
                for path in [stack.enter_context(daemon(config=_config(prefetch)))]
                for _ in range(_CLIENTS)
            ]
            for name, prefetch in _WAYS.items()
        }

    def measure(self, length: float, kind: str, seconds: float) -> list[list[str]]:
        file = self._directory / f"{length:g}.{kind}"
        file.write_bytes(encoded(speech(length), *_FORMATS[kind]))
        ways: dict[str, Callable[[], object]] = {_BASE: partial(self._bare, file.read_bytes())}
        ways |= {name: partial(self._crowd, name, file) for name in _WAYS}
        times = interleave(ways, seconds, 1, 3)
        rows = []
        for name, taken in times.items():
            ratios = [base / mine for base, mine in zip(times[_BASE], taken, strict=True)]
            spread = f"{percentile(ratios, 0.25):.2f} … {percentile(ratios, 0.75):.2f}"
            rate = f"{self._jobs / statistics.median(taken):.2f}"
            middle = f"{percentile(ratios, 0.5):.2f}"
            rows.append([f"{length:g} s, {kind}", name, rate, middle, spread])
        return rows

    def _bare(self, data: bytes) -> None:
        for _ in range(self._jobs):
            audio = decode_audio(io.BytesIO(data))
            list(self._model.transcribe(audio, beam_size=1, **_OPTIONS)[0])

    def _crowd(self, way: str, file: Path) -> None:
        def work(client: Client) -> None:
            for _ in range(self._jobs // _CLIENTS):
                client.transcribe(file, **_OPTIONS)

        list(self._pool.map(work, self._clients[way]))


def _config(prefetch: str) -> str:
    return (
        f"[front]\nqueue_max = 8\n[worker]\nprefetch = {prefetch}\ncpu_threads = 1\nbeam_size = 1\n"
    )


if __name__ == "__main__":
    main()
