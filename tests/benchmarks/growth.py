"""The cost of a job for the front, by the length of the queue and the number of idle clients.

    python -m tests.benchmarks.growth [--seconds S] [--waiting N ...] [--connected N ...]

The front is real. This program is its only worker, which answers at once, and its busy client,
which sends a job for each answer, so that the queue keeps its length. Only one thing happens at a
time: `jobs/s` is the inverse of the round trip, with this program's part; the front's processor
time is its own share. Everything is measured twice, the second time in the opposite order.
"""

import contextlib
import itertools
import resource
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import measure
from tests.support.daemons import Front
from tests.support.raw import PCM, Peer, done, memfd

# A tenth of a second of silence.
_AUDIO = bytes(3200)
_REQUEST = {"audio": PCM}
_CONFIG = """
queue_max = 20000
jobs_max_per_connection = 10000
connections_max = 10000
connections_max_per_user = 10000
max_wait_seconds = 3600
"""
_STATUS_ASKED = 20
# Jobs that are sent at once to fill the queue.
_BURST = 50


class Cost(NamedTuple):
    """Milliseconds of a job (round trip, front's processor time), MiB, milliseconds of `status`."""

    job: float
    front: float
    memory: float
    status: float


def main() -> None:
    made = measure.parser(__doc__, 75)
    made.add_argument("--waiting", type=int, nargs="*", default=[0, 10, 100, 1000, 10_000])
    made.add_argument("--connected", type=int, nargs="*", default=[0, 10, 100, 500, 2000])
    arguments = made.parse_args()
    # The front has a descriptor for each waiting job; an idle client has one on both sides.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(measure.machine())
    cases = [(waiting, 0) for waiting in arguments.waiting]
    cases += [(0, connected) for connected in arguments.connected]
    order = [*dict.fromkeys(cases), *dict.fromkeys(cases[::-1])]
    costs: dict[tuple[int, int], list[Cost]] = {}
    for case in order:
        share = arguments.seconds / max(1, len(order))
        costs.setdefault(case, []).append(_measure(*case, share))
    _report("jobs waiting", {n: costs[n, 0] for n in arguments.waiting})
    _report("idle clients connected", {n: costs[0, n] for n in arguments.connected})


def _report(unit: str, costs: dict[int, list[Cost]]) -> None:
    rows = []
    for count, found in costs.items():
        mean = Cost(*map(statistics.mean, zip(*found, strict=True)))
        row = [f"{count:,}", f"{1000 / mean.job:.0f}", f"{mean.front:.3f}"]
        rows.append([*row, f"{mean.memory:.1f}", f"{mean.status:.2f}"])
    header = [unit, "jobs/s", "front's CPU ms a job", "front's RSS MiB", "status p50 ms"]
    measure.table(f"Cost of a job by the number of {unit}", header, rows)


def _measure(waiting: int, connected: int, seconds: float) -> Cost:
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        front: Front = stack.enter_context(Front(Path(directory), "0", config=_CONFIG))
        worker = stack.enter_context(front.ready())
        audio = stack.enter_context(memfd(_AUDIO))
        for _ in range(connected):
            stack.enter_context(front.connect())
        # Two, because a connection may leave at most ten thousand unanswered.
        clients = [stack.enter_context(front.connect()) for _ in range(2)]
        loop = _loop(clients, worker, waiting, audio.fileno())
        next(loop)
        return _run(front, loop, seconds)


def _run(front: Front, loop: Iterator[None], seconds: float) -> Cost:
    pid = int(front.status()["pid"])
    before, started = measure.processor_seconds(pid), time.monotonic()
    jobs = 0
    for _ in measure.rounds(seconds):
        next(loop)
        jobs += 1
    taken, used = time.monotonic() - started, measure.processor_seconds(pid) - before
    status = statistics.median(measure.seconds_of(front.status) for _ in range(_STATUS_ASKED))
    memory = measure.memory_mib(pid, "Rss")
    return Cost(1000 * taken / jobs, 1000 * used / jobs, memory, 1000 * status)


def _loop(clients: list[Peer], worker: Peer, waiting: int, audio: int) -> Iterator[None]:
    """Fills the queue with `waiting` jobs; then each step sends one job and answers the oldest."""
    turns = itertools.cycle(clients)
    unanswered: deque[Peer] = deque()

    def send(count: int) -> None:
        client = next(turns)
        for _ in range(count):
            client.send("transcribe", _REQUEST, fds=(audio,))
        for _ in range(count):
            client.expect("accepted")
            unanswered.append(client)

    # One more than `waiting`, since one of them runs.
    left = waiting + 1 if waiting else 0
    while left:
        send(min(left, _BURST))
        left -= min(left, _BURST)
    while True:
        send(1)
        job, fd = worker.take_job()
        fd.close()
        worker.send("done", done(job["key"]))
        unanswered.popleft().expect("transcript")
        yield


if __name__ == "__main__":
    main()
