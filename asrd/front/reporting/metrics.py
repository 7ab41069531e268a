"""Counters, histograms and recent timings of jobs, for the status snapshot."""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any

from asrd.errors import Code

# The upper bounds of the histograms' buckets (docs/monitoring.md). They are fixed, so that the
# histograms of several hosts and versions can be added. In seconds:
TIME_BOUNDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0),
)
AUDIO_BOUNDS = (
    *(1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0),
    *(120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0),
)
# Without unit:
FACTOR_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)

# Percentiles are of the last thousand jobs: recent, and enough for a 99th.
_RECENT = 1000
# Failures that may be the daemon's fault, not the request's.
_OURS = frozenset(
    {
        Code.DEADLINE_EXCEEDED,
        Code.WORKER_CRASHED,
        Code.OUT_OF_MEMORY,
        Code.UNAVAILABLE,
        Code.INTERNAL,
    }
)


def percentiles(values: Iterable[float], scale: float = 1.0, digits: int = 1) -> dict[str, float]:
    """Returns p50, p95 and p99 by the nearest-rank method; 0 without values."""
    ordered = sorted(values) or [0.0]
    return {
        # In whole numbers: with floats, 0.95 of 20 might not be the nineteenth.
        f"p{percent}": round(ordered[-(-percent * len(ordered) // 100) - 1] * scale, digits)
        for percent in (50, 95, 99)
    }


class _Recent:
    """The last values of a measure. They are sorted once after a change, not for each question:
    anybody may ask, and often."""

    def __init__(self, scale: float = 1.0, digits: int = 1) -> None:
        self._values: deque[float] = deque(maxlen=_RECENT)
        self._scale, self._digits = scale, digits
        self._percentiles: dict[str, float] | None = None

    def add(self, value: float) -> None:
        self._values.append(value)
        self._percentiles = None

    def percentiles(self) -> dict[str, float]:
        if self._percentiles is None:
            self._percentiles = percentiles(self._values, self._scale, self._digits)
        return self._percentiles


class Histogram:
    """Numbers of values by size: `counts[i]` are above `bounds[i - 1]` and not above `bounds[i]`;
    the last one counts those above all bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def as_data(self) -> dict[str, Any]:
        return {"bounds": list(self.bounds), "counts": list(self.counts), "sum": round(self.sum, 6)}


class Metrics:
    def __init__(self) -> None:
        self.accepted = 0
        self.done = 0
        self.refused: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        # Starts of jobs that go on after a window that an earlier attempt has done.
        self.resumed = 0
        # Of live streams; they are no jobs of a client.
        self.live_steps = 0
        self.ignored_events = 0
        self.audio_seconds = 0.0
        self.daemon_failures = 0
        # In seconds of the scheduler's clock, and the daemon's failures since then.
        self.last_success: float | None = None
        self.failures_in_a_row = 0
        self._waits, self._runs = _Recent(scale=1000), _Recent(scale=1000)
        self._factors = _Recent(digits=4)
        self._histograms = {
            "wait_seconds": Histogram(TIME_BOUNDS),
            "run_seconds": Histogram(TIME_BOUNDS),
            "audio_seconds": Histogram(AUDIO_BOUNDS),
            "real_time_factor": Histogram(FACTOR_BOUNDS),
        }

    def job_done(
        self, wait: float, run: float, audio_seconds: float, now: float, before: float = 0.0
    ) -> None:
        """All arguments are in seconds; `before`: of a live stream that its steps have finished."""
        self.done += 1
        self.last_success, self.failures_in_a_row = now, 0
        self.audio_seconds += before + audio_seconds
        self._waits.add(wait)
        self._runs.add(run)
        self._histograms["wait_seconds"].add(wait)
        self._histograms["run_seconds"].add(run)
        self._histograms["audio_seconds"].add(before + audio_seconds)
        if audio_seconds > 0:
            self._factors.add(run / audio_seconds)
            self._histograms["real_time_factor"].add(run / audio_seconds)

    def job_failed(self, code: Code, own_timeout: bool) -> None:
        """`own_timeout`: the client set the deadline itself."""
        self.failed[code.value] += 1
        hasty = code is Code.DEADLINE_EXCEEDED and own_timeout
        ours = code in _OURS and not hasty
        self.daemon_failures += ours
        self.failures_in_a_row += ours

    def stream_failed(self, code: Code) -> None:
        """A live stream failed before it became a job."""
        self.accepted += 1
        self.job_failed(code, own_timeout=False)

    def jobs(self, retried: int, suspended: int) -> dict[str, object]:
        return {
            "accepted": self.accepted,
            "done": self.done,
            "retried": retried,
            "suspended": suspended,
            "resumed": self.resumed,
            "failed": dict(self.failed),
            "refused": dict(self.refused),
            "daemon_failures": self.daemon_failures,
        }

    def latency_ms(self) -> dict[str, dict[str, float]]:
        return {"wait": self._waits.percentiles(), "run": self._runs.percentiles()}

    def real_time_factor(self) -> dict[str, float]:
        return self._factors.percentiles()

    def histograms(self) -> dict[str, dict[str, Any]]:
        return {name: histogram.as_data() for name, histogram in self._histograms.items()}
