"""Counts and recent timings of jobs; what the status snapshot is made of. Pure."""

from collections import Counter, deque
from collections.abc import Iterable

from asrd.errors import Code

# Percentiles speak of the last thousand jobs: recent, and enough for a 99th.
_RECENT = 1000
# Failures that say something of the daemon, not of the request.
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
    """p50, p95 and p99 by the nearest-rank method, 0 where there are no values."""
    ordered = sorted(values) or [0.0]
    return {
        # In whole numbers: 0.95 of 20 must be the nineteenth, whatever floats make of it.
        f"p{percent}": round(ordered[-(-percent * len(ordered) // 100) - 1] * scale, digits)
        for percent in (50, 95, 99)
    }


class _Recent:
    """The last values of a measure. Sorted once after each change, not for each who asks: anybody
    may ask, and often."""

    def __init__(self, scale: float = 1.0, digits: int = 1) -> None:
        self._values: deque[float] = deque(maxlen=_RECENT)
        self._scale, self._digits = scale, digits
        self._told: dict[str, float] | None = None

    def add(self, value: float) -> None:
        self._values.append(value)
        self._told = None

    def percentiles(self) -> dict[str, float]:
        if self._told is None:
            self._told = percentiles(self._values, self._scale, self._digits)
        return self._told


class Metrics:
    def __init__(self) -> None:
        self.accepted = 0
        self.done = 0
        self.refused: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.ignored_events = 0
        self.audio_seconds = 0.0
        # In seconds of the scheduler's clock; and what the daemon could not do since then.
        self.last_success: float | None = None
        self.failures_in_a_row = 0
        self._waits, self._runs = _Recent(scale=1000), _Recent(scale=1000)
        self._factors = _Recent(digits=4)

    def job_done(self, wait: float, run: float, audio_seconds: float, now: float) -> None:
        """All in seconds."""
        self.done += 1
        self.last_success, self.failures_in_a_row = now, 0
        self.audio_seconds += audio_seconds
        self._waits.add(wait)
        self._runs.add(run)
        if audio_seconds > 0:
            self._factors.add(run / audio_seconds)

    def job_failed(self, code: Code, own_timeout: bool) -> None:
        """`own_timeout`: the client itself said how long it would wait."""
        self.failed[code.value] += 1
        hasty = code is Code.DEADLINE_EXCEEDED and own_timeout
        self.failures_in_a_row += code in _OURS and not hasty

    def jobs(self, retried: int) -> dict[str, object]:
        return {
            "accepted": self.accepted,
            "done": self.done,
            "retried": retried,
            "failed": dict(self.failed),
            "refused": dict(self.refused),
        }

    def latency_ms(self) -> dict[str, dict[str, float]]:
        return {"wait": self._waits.percentiles(), "run": self._runs.percentiles()}

    def real_time_factor(self) -> dict[str, float]:
        return self._factors.percentiles()
