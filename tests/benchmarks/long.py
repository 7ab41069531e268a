"""Long recordings: how soon the first segment comes, how much memory the worker takes, how long a
cancel takes; beside faster-whisper in a process of its own, which reads the whole file first.

    python -m tests.benchmarks.long [--seconds S] [--minutes M ...] [--watch W] [--whole]

Each recording is cancelled `--watch` seconds after its first segment, in rounds over all of them,
each time with a fresh worker.
Then the longest is watched for a sixth of the time (`--whole`: to its end) while its memory is
looked at. The demo model, beam 1, English, temperature 0.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asrd import Client
from asrd.client.client import SegmentStream
from asrd.demo import MODEL
from asrd.errors import Cancelled
from tests.benchmarks.longfiles import FORMATS, LongFiles
from tests.benchmarks.measure import (
    CONFIG,
    as_a_worker,
    daemon,
    machine,
    memory_mib,
    parser,
    speech,
    table,
    wait_until_ready,
)

_IN_PROCESS = """
import re, sys, time, numpy
from faster_whisper import WhisperModel
model = WhisperModel(sys.argv[1], device="cpu", cpu_threads=1)
options = dict(beam_size=1, language="en", temperature=0.0, vad_filter=sys.argv[3] == "VAD")
silence = numpy.zeros(16000, "float32")
list(model.transcribe(silence, **options)[0])
start = time.monotonic()
audio = numpy.fromfile(sys.argv[2], "<i2").astype("float32") / 32768
next(model.transcribe(audio, **options)[0])
taken = time.monotonic() - start
# Not ru_maxrss: a child begins with its parent's.
print(taken, int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024)
"""
# faster-whisper needs gigabytes for an hour.
_IN_PROCESS_MINUTES = 10
_LOOKS = 6
_OPTIONS: dict[str, Any] = {"language": "en", "temperature": 0.0}


@dataclass(frozen=True)
class Case:
    kind: str
    minutes: int
    vad: bool

    def __str__(self) -> str:
        return f"{self.kind.upper()}, {self.minutes} min{', VAD' * self.vad}"

    @property
    def short(self) -> "Case":
        """What it is compared with: a minute of the same."""
        return Case(self.kind, 1, self.vad)


@dataclass
class Seen:
    """Seconds, but for the peak of memory in MiB; `reached`: seconds of audio when cancelled."""

    first: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    reached: list[float] = field(default_factory=list)
    cancelled: list[float] = field(default_factory=list)
    free: list[float] = field(default_factory=list)


def main() -> None:
    arguments = _arguments()
    as_a_worker("tests.benchmarks.long")
    print(machine())
    with tempfile.TemporaryDirectory() as directory, daemon(config=CONFIG) as path:
        files = LongFiles(Path(directory))
        with Client(path) as client:
            bench = _Bench(files, path, client, arguments)
            bench.run(arguments.seconds * 5 / 6)
            bench.report()
            bench.watch_longest(max(arguments.minutes), arguments.seconds / 6, arguments.whole)


def _arguments() -> argparse.Namespace:
    made = parser(__doc__, 180)
    made.add_argument("--minutes", type=int, nargs="*", default=[1, 10, 60, 180])
    made.add_argument("--encoded-minutes", type=int, nargs="*", default=[1, 60])
    made.add_argument("--watch", type=float, default=1.5, help="default: %(default)g s")
    made.add_argument("--whole", action="store_true", help="do not cancel the longest")
    return made.parse_args()


class _Bench:
    def __init__(
        self, files: LongFiles, path: str, client: Client, arguments: argparse.Namespace
    ) -> None:
        self._files = files
        self._path = path
        self._client = client
        self._watch = arguments.watch
        self._cases = [Case("pcm", m, vad) for m in arguments.minutes for vad in (False, True)]
        encoded = [kind for kind in FORMATS if kind != "pcm"]
        self._cases += [Case(kind, m, False) for kind in encoded for m in arguments.encoded_minutes]
        self._seen = {case: Seen() for case in self._cases}
        self._alone: dict[Case, Seen] = {}
        for case in self._cases:
            files.get(case.kind, case.minutes)

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._try(self._cases[0], Seen())
        while not self._seen[self._cases[0]].first or time.monotonic() < end:
            for case in self._cases:
                self._try(case, self._seen[case])
                if case.kind == "pcm" and case.minutes <= _IN_PROCESS_MINUTES:
                    self._try_alone(case)

    def _try(self, case: Case, seen: Seen) -> None:
        pid = self._fresh_worker()
        reached: list[float] = []
        with closing(self._stream(case, lambda progress: reached.append(progress))) as stream:
            started = time.monotonic()
            next(stream)
            seen.first.append(time.monotonic() - started)
            self._read_for(stream, self._watch)
            seen.reached.append(reached[-1] if reached else 0.0)
            seen.peak.append(memory_mib(pid, "VmHWM"))
            self._cancel(stream, seen)

    def _stream(self, case: Case, note: Callable[[float], object]) -> SegmentStream:
        encoding = "pcm_s16le" if case.kind == "pcm" else "file"
        return self._client.stream(
            self._files.get(case.kind, case.minutes),
            encoding=encoding,
            vad_filter=case.vad,
            on_progress=lambda progress: note(progress.audio_seconds_done),
            **_OPTIONS,
        )

    def _read_for(self, stream: SegmentStream, seconds: float) -> None:
        end = time.monotonic() + seconds
        for _ in stream:
            if time.monotonic() > end:
                return

    def _cancel(self, stream: SegmentStream, seen: Seen) -> None:
        """Nothing is noted of one that had ended before."""
        started = time.monotonic()
        if not self._client.cancel(stream.job_id):
            return
        try:
            for _ in stream:
                pass
        except Cancelled:
            seen.cancelled.append(time.monotonic() - started)
        wait_until_ready(self._path)
        seen.free.append(time.monotonic() - started)

    def _fresh_worker(self) -> int:
        """Its pid. A worker keeps the memory of its largest job: each case gets a new one, warm."""
        old = int(wait_until_ready(self._path)[0]["pid"])
        os.kill(old, signal.SIGKILL)
        while (pid := int(wait_until_ready(self._path)[0]["pid"])) == old:
            time.sleep(0.01)
        self._client.transcribe(speech(3), **_OPTIONS)
        # proc(5): 5 makes the peak what is resident now.
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        return pid

    def _try_alone(self, case: Case) -> None:
        file = self._files.get(case.kind, case.minutes)
        argv = [sys.executable, "-c", _IN_PROCESS, str(MODEL), str(file), "VAD" * case.vad]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        first, peak = map(float, done.stdout.split())
        seen = self._alone.setdefault(case, Seen())
        seen.first.append(first)
        seen.peak.append(peak)

    def report(self) -> None:
        rows = [_row(str(case), seen, self._seen[case.short]) for case, seen in self._seen.items()]
        rows += [
            _row(f"in process: {case}", seen, self._alone[case.short])
            for case, seen in self._alone.items()
        ]
        header = ["recording", "n", "first segment p50 ms", "÷ a minute's, paired p50", "peak MiB"]
        header += ["audio read by then s", "cancel p50 / max ms", "worker free p50 / max ms"]
        table(f"Cancelled {self._watch:g} s after the first segment", header, rows)

    def watch_longest(self, minutes: int, seconds: float, whole: bool) -> None:
        pid = self._fresh_worker()
        rows = []
        reached = [0.0]
        started = time.monotonic()
        with closing(self._stream(Case("pcm", minutes, False), reached.append)) as stream:
            due = 0.0
            for _ in stream:
                passed = time.monotonic() - started
                if passed < due and not (whole and reached[-1] >= minutes * 60):
                    continue
                sizes = [f"{memory_mib(pid, key):.1f}" for key in ("VmRSS", "VmHWM")]
                rows.append([f"{passed:.1f}", f"{reached[-1] / 60:.1f}", *sizes])
                due = passed + seconds / _LOOKS
                if passed > seconds and not whole:
                    break
        header = ["after s", "audio done, min", "worker's RSS MiB", "peak MiB"]
        table(f"PCM, {minutes} min, while it is transcribed", header, rows)


def _row(name: str, seen: Seen, minute: Seen) -> list[str]:
    ratios = [a / b for a, b in zip(seen.first, minute.first, strict=False)]
    row = [name, str(len(seen.first)), f"{1000 * statistics.median(seen.first):.0f}"]
    row += [f"{statistics.median(ratios):.2f}" if ratios else "-", f"{max(seen.peak):.1f}"]
    row.append(f"{max(seen.reached):.0f}" if seen.reached else "-")
    return [*row, _both(seen.cancelled), _both(seen.free)]


def _both(times: list[float]) -> str:
    return f"{1000 * statistics.median(times):.0f} / {1000 * max(times):.0f}" if times else "-"


if __name__ == "__main__":
    main()
