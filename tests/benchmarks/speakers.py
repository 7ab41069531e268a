"""The search for speakers: how right it is by threshold, its time and its memory.

    python -m tests.benchmarks.speakers [--thresholds T ...] [--minutes N ...]

Real models (tests/support/real/speaker_models.py) and a conversation of three real speakers, joined
from recordings. Each recording has a process of its own, with two threads. "Silent" is the time
before the first report of progress.
"""

import multiprocessing
import re
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from asrd.engine.speakers import load_engine
from asrd.settings import WorkerSettings
from asrd.wire.options import Options
from tests.benchmarks import measure
from tests.support.engine_jobs import Listener, transcribe
from tests.support.real import speaker_models
from tests.support.real.conversation import SPEAKERS, conversation, wrong_share

_THREADS = 2
# Of the recording for the thresholds.
_SECONDS = 140


class _Timed(Listener):
    """Notes the first report that is not about reading."""

    def __init__(self) -> None:
        super().__init__()
        self.began = time.monotonic()
        self.silent = 0.0

    def on_progress(self, done: float, total: float | None) -> None:
        if not done:
            self.began = time.monotonic()
        elif not self.silent:
            self.silent = time.monotonic() - self.began


def main() -> None:
    made = measure.parser(__doc__)
    made.add_argument("--thresholds", nargs="*", type=float, default=[0.5, 0.6, 0.7, 0.8, 0.9])
    made.add_argument("--minutes", nargs="*", type=float, default=[1, 5])
    arguments = made.parse_args()
    print(measure.machine())
    path = speaker_models.directory()
    rows = [_accuracy(path, threshold, None) for threshold in arguments.thresholds]
    rows.append(_accuracy(path, 0.8, SPEAKERS))
    header = ["threshold", "speakers", "time with the wrong speaker, or none"]
    measure.table(f"{SPEAKERS} speakers", header, rows)
    header = ["recording", "search", "of it silent", "per audio minute", "memory"]
    rows = []
    for minutes in arguments.minutes:
        # A new process, whose memory has seen nothing else.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            rows.append(pool.submit(_cost, path, minutes).result())
    measure.table("Cost", header, rows)


def _settings(path: Path, threshold: float) -> WorkerSettings:
    return WorkerSettings(model=str(path), cpu_threads=_THREADS, speaker_threshold=threshold)


def _accuracy(path: Path, threshold: float, number: int | None) -> list[str]:
    engine, talk = load_engine(_settings(path, threshold), path), conversation(_SECONDS)
    options = Options(task="speakers", num_speakers=number)
    turns = transcribe(engine, talk.samples, options).segments
    name = f"{threshold:g}" if number is None else f"num_speakers = {number}"
    count = len({turn.speaker for turn in turns})
    return [name, str(count), f"{100 * wrong_share(talk, turns):.0f} %"]


def _cost(path: Path, minutes: float) -> list[str]:
    talk = conversation(60 * minutes)
    samples = talk.samples[: round(60 * minutes * measure.RATE)]
    engine, timed = load_engine(_settings(path, 0.8), path), _Timed()
    seconds = measure.seconds_of(
        lambda: transcribe(engine, samples, Options(task="speakers"), timed)
    )
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    memory = int(peak[1]) / 1024 if peak else 0.0
    return [
        f"{minutes:g} min",
        f"{seconds:.1f} s",
        f"{timed.silent:.1f} s",
        f"{seconds / minutes:.2f} s",
        f"{memory:.0f} MiB",
    ]


if __name__ == "__main__":
    main()
