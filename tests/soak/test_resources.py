"""Tests of the campaign's measurements: growth and lost processes must be found."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.soak import resources
from tests.soak.host import Host
from tests.soak.ledger import Ledger
from tests.soak.resources import AT_WORK, Holding, Snapshot, Trend, Watch
from tests.support.judging import LIMITS, strike

SMALL = Holding(26_000, 10, 1)


def lived(hold: Callable[[int], Holding]) -> Trend:
    """The trend of a process that lived an hour; `hold` gives its holding at each second."""
    trend = Trend(1)
    for second in range(3_600):
        trend.add(float(second), hold(second))
    return trend


@pytest.mark.parametrize("at", [1_000, 2_250, 3_000])
def test_single_step_of_memory_is_no_growth_of_a_worker(at: int) -> None:
    """A front may not grow by it, and no job needs descriptors or threads for good."""
    trend = lived(lambda s: SMALL._replace(rss_kib=26_000 + (s > at) * 32_000))
    assert trend.rise(but_a_step=True) == Holding(0, 0, 0)
    rise = trend.rise()
    assert rise is not None and rise.rss_kib > 0
    rise = lived(lambda s: SMALL._replace(descriptors=10 + (s > at) * 80)).rise(but_a_step=True)
    assert rise is not None and rise.exceeds(AT_WORK)


@pytest.mark.parametrize(
    "hold",
    [
        lambda s: SMALL._replace(rss_kib=26_000 + s % 7 * 9_000),
        lambda s: SMALL if s < 300 else SMALL._replace(rss_kib=99_000),
    ],
)
def test_rises_and_falls_and_a_large_start_are_no_growth(hold: Callable[[int], Holding]) -> None:
    rise = lived(hold).rise()
    assert rise is not None and not rise.exceeds(AT_WORK)


@pytest.mark.parametrize(
    "leak",
    [
        lambda s: SMALL._replace(rss_kib=26_000 + 12 * s + s % 7 * 9_000),
        lambda s: SMALL._replace(descriptors=10 + s // 200 + s % 5),
        lambda s: SMALL._replace(threads=1 + s // 600),
    ],
)
def test_slow_leak_under_rises_and_falls_is_found(leak: Callable[[int], Holding]) -> None:
    trend = lived(leak)
    for but_a_step in False, True:
        rise = trend.rise(but_a_step)
        assert rise is not None and rise.exceeds(AT_WORK)
    # The trend of a long life is still a few numbers.
    assert len(trend.floors) <= 64


@pytest.mark.parametrize(
    ("change", "files", "found"),
    [
        ({"descriptors": 11}, set(), "front grew: "),
        ({"threads": 2}, set(), "front grew: "),
        ({"rss_kib": 60_000}, set(), "front grew: "),
        ({"rss_kib": 30_000}, set(), ""),
        ({}, {"left"}, "files left behind: ['left']"),
    ],
)
def test_growth_at_rest_is_found(change: dict[str, int], files: set[str], found: str) -> None:
    first = Snapshot({"front": SMALL}, {"asrd.sock"})
    last = Snapshot({"front": SMALL._replace(**change)}, {"asrd.sock", *files})
    grown = first.growth(last)
    assert len(grown) == bool(found)
    assert "".join(grown).startswith(found)


# --- the watch ------------------------------------------------------------------------------------


@pytest.fixture
def watch(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Looks once at a daemon with this front, these workers and so many processes."""
    answer: dict[str, Any] = {}
    host = SimpleNamespace(socket="", workers=("0", "1"), helpers=dict, holding=lambda pid: SMALL)
    monkeypatch.setattr(resources, "status", lambda socket: answer)
    watching = Watch(ledger, cast(Host, host))

    def look(front: int, state: str = "ready", processes: int = 3) -> None:
        answer.update(pid=front, workers=[{"name": "0", "pid": 2, "state": state}])
        host.processes = lambda: processes
        watching._look()

    return look


def test_watch_reports_front_that_ends_by_itself(
    ledger: Ledger, watch: Callable[..., None]
) -> None:
    watch(4711)
    strike(ledger, "SIGKILL to front")
    watch(101)
    assert not ledger.failures
    watch(102)
    assert "the front 101 ended, and nobody killed it" in ledger.failures[0]


def test_watch_reports_surplus_process(ledger: Ledger, watch: Callable[..., None]) -> None:
    watch(100, processes=4)
    assert "4 processes" in ledger.failures[0]


def test_watch_reports_workers_that_never_return(
    ledger: Ledger, watch: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(100)
    later = time.monotonic() + LIMITS.slow_death + LIMITS.grace + 1
    monkeypatch.setattr(resources, "time", SimpleNamespace(monotonic=lambda: later))
    watch(100, state="loading")
    assert "no worker at all" in ledger.failures[0]
