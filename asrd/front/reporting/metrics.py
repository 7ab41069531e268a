"""Counters and recent timings of jobs, for the status snapshot."""

from collections import Counter, deque
from collections.abc import Iterable

from asrd.errors import Code

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


class Metrics:
    def __init__(self) -> None:
        self.accepted = 0
        self.done = 0
        self.refused: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.ignored_events = 0
        self.audio_seconds = 0.0
        # In seconds of the scheduler's clock, and the daemon's failures since then.
        self.last_success: float | None = None
        self.failures_in_a_row = 0
        self._waits, self._runs = _Recent(scale=1000), _Recent(scale=1000)
        self._factors = _Recent(digits=4)

    def job_done(self, wait: float, run: float, audio_seconds: float, now: float) -> None:
        """All arguments are in seconds."""
        self.done += 1
        self.last_success, self.failures_in_a_row = now, 0
        self.audio_seconds += audio_seconds
        self._waits.add(wait)
        self._runs.add(run)
        if audio_seconds > 0:
            self._factors.add(run / audio_seconds)

    def job_failed(self, code: Code, own_timeout: bool) -> None:
        """`own_timeout`: the client set the deadline itself."""
        self.failed[code.value] += 1
        hasty = code is Code.DEADLINE_EXCEEDED and own_timeout
        self.failures_in_a_row += code in _OURS and not hasty

    def jobs(self, retried: int, prefetched: int) -> dict[str, object]:
        return {
            "accepted": self.accepted,
            "done": self.done,
            "retried": retried,
            "prefetched": prefetched,
            "failed": dict(self.failed),
            "refused": dict(self.refused),
        }

    def latency_ms(self) -> dict[str, dict[str, float]]:
        return {"wait": self._waits.percentiles(), "run": self._runs.percentiles()}

    def real_time_factor(self) -> dict[str, float]:
        return self._factors.percentiles()
