"""Long recordings: time to the first segment, the worker's memory, and the time a cancel takes.

    python -m tests.benchmarks.long [--model M] [--seconds S] [--minutes N ...] [--watch W]

Each recording is cancelled `--watch` seconds after its first segment, with a new worker each time.
Then the longest is transcribed for a sixth of the time while its memory is measured. It is compared
with faster-whisper in a process of its own, which reads the whole file first. Beam 1, English,
temperature 0.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asrd import Client
from asrd.client.client import SegmentStream
from asrd.errors import Cancelled
from tests.benchmarks import measure
from tests.support.sounds import encoded

_IN_PROCESS = """
import re, sys, time, numpy
from faster_whisper import WhisperModel
model = WhisperModel(sys.argv[1], device="cpu", cpu_threads=1, compute_type="int8")
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
# Container, codec and sample rate for PyAV, by the name in the table.
_FORMATS = {
    "FLAC": ("flac", "flac", measure.RATE),
    "MP3": ("mp3", "libmp3lame", measure.RATE),
    "OPUS": ("ogg", "libopus", 48_000),
}


class Case(NamedTuple):
    """A recording and the way to transcribe it."""

    kind: str
    minutes: int
    vad: bool = False
    in_process: bool = False

    def __str__(self) -> str:
        way = "in process: " * self.in_process
        return f"{way}{self.kind}, {self.minutes} min{', VAD' * self.vad}"


@dataclass
class Seen:
    """Lists with an entry for each round: seconds, `peak` in MiB, and in `reached` the seconds of
    audio that were transcribed before the cancel."""

    first: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    reached: list[float] = field(default_factory=list)
    cancelled: list[float] = field(default_factory=list)
    free: list[float] = field(default_factory=list)


def main() -> None:
    made = measure.parser(__doc__, 180, "tiny.en")
    made.add_argument("--minutes", type=int, nargs="*", default=[1, 10, 60, 180])
    made.add_argument("--encoded-minutes", type=int, nargs="*", default=[1, 60])
    made.add_argument("--watch", type=float, default=1.5, help="default: %(default)g s")
    arguments = made.parse_args()
    measure.use_worker_environment()
    print(measure.machine())
    with (
        tempfile.TemporaryDirectory() as directory,
        measure.daemon(model=arguments.model.path) as path,
    ):
        with Client(path) as client:
            bench = _Bench(Path(directory), path, client, arguments)
            bench.run(arguments.seconds * 5 / 6)
            bench.report()
            bench.watch(Case("PCM", max(arguments.minutes)), arguments.seconds / 6)


class _Bench:
    def __init__(
        self, directory: Path, path: str, client: Client, arguments: argparse.Namespace
    ) -> None:
        self._directory = directory
        self._model = arguments.model
        self._path = path
        self._client = client
        self._watch = arguments.watch
        self._cases = [Case("PCM", m, vad) for m in arguments.minutes for vad in (False, True)]
        self._cases += [Case(kind, m) for kind in _FORMATS for m in arguments.encoded_minutes]
        self._seen: defaultdict[Case, Seen] = defaultdict(Seen)
        for case in self._cases:
            self._write(case)

    def _file(self, case: Case) -> Path:
        return self._directory / f"{case.minutes}.{case.kind}"

    def _write(self, case: Case) -> None:
        """Repeats ten minutes of speech, or less, as often as needed."""
        speech = self._model.speech(60 * min(case.minutes, 10))
        times = max(1, case.minutes // 10)
        if case.kind == "PCM":
            data = measure.pcm(speech) * times
        else:
            data = encoded(np.tile(speech, times), *_FORMATS[case.kind])
        self._file(case).write_bytes(data)

    def run(self, seconds: float) -> None:
        self._try(self._cases[0], Seen())
        for _ in measure.rounds(seconds):
            for case in self._cases:
                self._try(case, self._seen[case])
                if case.kind == "PCM" and case.minutes <= _IN_PROCESS_MINUTES:
                    self._try_in_process(case)

    def _try(self, case: Case, seen: Seen) -> None:
        pid = self._fresh_worker()
        reached = [0.0]
        with closing(self._stream(case, reached)) as stream:
            seen.first.append(measure.seconds_of(lambda: next(stream)))
            end = time.monotonic() + self._watch
            for _ in stream:
                if time.monotonic() > end:
                    break
            seen.reached.append(reached[-1])
            seen.peak.append(measure.memory_mib(pid, "VmHWM"))
            self._cancel(stream, seen)

    def _stream(self, case: Case, reached: list[float]) -> SegmentStream:
        return self._client.stream(
            self._file(case),
            encoding="pcm_s16le" if case.kind == "PCM" else "file",
            vad_filter=case.vad,
            on_progress=lambda progress: reached.append(progress.audio_seconds_done),
            **measure.ASKED,
        )

    def _cancel(self, stream: SegmentStream, seen: Seen) -> None:
        """Cancels the job and notes the times, except of a job that had already ended."""
        started = time.monotonic()
        if not self._client.cancel(stream.job_id):
            return
        try:
            for _ in stream:
                pass
        except Cancelled:
            seen.cancelled.append(time.monotonic() - started)
        measure.wait_until_ready(self._path)
        seen.free.append(time.monotonic() - started)

    def _fresh_worker(self) -> int:
        """Replaces the worker and warms the new one up: a worker keeps the memory of its largest
        job. Returns the new pid."""
        old = int(measure.wait_until_ready(self._path)[0]["pid"])
        os.kill(old, signal.SIGKILL)
        while (pid := int(measure.wait_until_ready(self._path)[0]["pid"])) == old:
            time.sleep(0.01)
        self._client.transcribe(self._model.speech(3), **measure.ASKED)
        # proc(5): 5 sets the peak to what is resident now.
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        return pid

    def _try_in_process(self, case: Case) -> None:
        argv = [sys.executable, "-c", _IN_PROCESS, str(self._model.path), str(self._file(case))]
        argv.append("VAD" * case.vad)
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        first, peak = map(float, done.stdout.split())
        seen = self._seen[case._replace(in_process=True)]
        seen.first.append(first)
        seen.peak.append(peak)

    def report(self) -> None:
        cases = sorted(self._seen, key=lambda case: case.in_process)
        rows = [
            _row(case, self._seen[case], self._seen[case._replace(minutes=1)]) for case in cases
        ]
        header = ["recording", "n", "first segment p50 ms", "÷ a minute's, paired p50", "peak MiB"]
        header += ["audio read by then s", "cancel p50 / max ms", "worker free p50 / max ms"]
        measure.table(f"Cancelled {self._watch:g} s after the first segment", header, rows)

    def watch(self, case: Case, seconds: float) -> None:
        pid = self._fresh_worker()
        rows = []
        reached = [0.0]
        due, started = 0.0, time.monotonic()
        with closing(self._stream(case, reached)) as stream:
            for _ in stream:
                passed = time.monotonic() - started
                if passed < due:
                    continue
                sizes = [f"{measure.memory_mib(pid, key):.1f}" for key in ("VmRSS", "VmHWM")]
                rows.append([f"{passed:.1f}", f"{reached[-1] / 60:.1f}", *sizes])
                due = passed + seconds / _LOOKS
                if passed > seconds:
                    break
        header = ["after s", "audio done, min", "worker's RSS MiB", "peak MiB"]
        measure.table(f"{case}, while it is transcribed", header, rows)


def _row(case: Case, seen: Seen, minute: Seen) -> list[str]:
    ratios = [a / b for a, b in zip(seen.first, minute.first, strict=False)]
    row = [str(case), str(len(seen.first)), f"{measure.median_ms(seen.first):.0f}"]
    row += [f"{statistics.median(ratios):.2f}" if ratios else "-", f"{max(seen.peak):.1f}"]
    row.append(f"{max(seen.reached):.0f}" if seen.reached else "-")
    for times in (seen.cancelled, seen.free):
        row.append(f"{measure.median_ms(times):.0f} / {1000 * max(times):.0f}" if times else "-")
    return row


if __name__ == "__main__":
    main()
