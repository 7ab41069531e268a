"""Counts and recent timings of jobs; what the status snapshot is made of. Pure."""

from collections import Counter, deque
from collections.abc import Iterable

# Percentiles speak of the last thousand jobs: recent, and enough for a 99th.
_RECENT = 1000


def percentiles(values: Iterable[float], scale: float = 1.0, digits: int = 1) -> dict[str, float]:
    """p50, p95 and p99 by the nearest-rank method, 0 where there are no values."""
    ordered = sorted(values) or [0.0]
    return {
        # In whole numbers: 0.95 of 20 must be the nineteenth, whatever floats make of it.
        f"p{percent}": round(ordered[-(-percent * len(ordered) // 100) - 1] * scale, digits)
        for percent in (50, 95, 99)
    }


class Metrics:
    def __init__(self) -> None:
        self.accepted = 0
        self.done = 0
        self.refused: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.ignored_events = 0
        self.audio_seconds = 0.0
        self._waits: deque[float] = deque(maxlen=_RECENT)
        self._runs: deque[float] = deque(maxlen=_RECENT)
        self._factors: deque[float] = deque(maxlen=_RECENT)

    def job_done(self, wait: float, run: float, audio_seconds: float) -> None:
        """All in seconds."""
        self.done += 1
        self.audio_seconds += audio_seconds
        self._waits.append(wait)
        self._runs.append(run)
        if audio_seconds > 0:
            self._factors.append(run / audio_seconds)

    def jobs(self, retried: int) -> dict[str, object]:
        return {
            "accepted": self.accepted,
            "done": self.done,
            "retried": retried,
            "failed": dict(self.failed),
            "refused": dict(self.refused),
        }

    def latency_ms(self) -> dict[str, dict[str, float]]:
        return {
            "wait": percentiles(self._waits, 1000),
            "run": percentiles(self._runs, 1000),
        }

    def real_time_factor(self) -> dict[str, float]:
        return percentiles(self._factors, digits=4)
