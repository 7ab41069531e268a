"""The cost of a job for the front, by the length of the queue, the number of idle clients and the
length of the recording.

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
# The share of the time for recordings of different lengths.
_LENGTHS_SHARE = 0.2
_LENGTHS = {"5 s": 5, "10 min": 600, "1 h": 3600}
# Jobs that are measured together, and jobs that are sent at once to fill the queue.
_BLOCK = 50


class Cost(NamedTuple):
    """Milliseconds of a job (round trip, front's processor time), MiB, milliseconds of `status`."""

    job: float
    front: float
    memory: float
    status: float


def main() -> None:
    made = measure.parser(__doc__, 90)
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
        share = (1 - _LENGTHS_SHARE) * arguments.seconds / max(1, len(order))
        costs.setdefault(case, []).append(_measure(*case, share))
    _report("jobs waiting", {n: costs[n, 0] for n in arguments.waiting})
    _report("idle clients connected", {n: costs[0, n] for n in arguments.connected})
    _lengths(arguments.seconds * _LENGTHS_SHARE)


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
        front, worker = _front(stack, Path(directory))
        audio = stack.enter_context(memfd(_AUDIO))
        for _ in range(connected):
            stack.enter_context(front.connect())
        # Two, because a connection may leave at most ten thousand unanswered.
        clients = [stack.enter_context(front.connect()) for _ in range(2)]
        loop = _loop(clients, worker, waiting, audio.fileno())
        next(loop)
        return _run(front, loop, seconds)


def _lengths(seconds: float) -> None:
    """Measures blocks of jobs with descriptors of PCM files (sparse files: nothing reads them)."""
    used = dict.fromkeys(_LENGTHS, 0.0)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (directory / "front").mkdir()
        front, worker = _front(stack, directory / "front")
        client = stack.enter_context(front.connect())
        pid = int(front.status()["pid"])
        loops = {}
        for name, length in _LENGTHS.items():
            file = stack.enter_context(open(directory / name, "w+b"))
            file.truncate(32_000 * length)
            loops[name] = _loop([client], worker, 0, file.fileno())
        jobs = 0
        for _ in measure.rounds(seconds):
            for name, loop in loops.items():
                before = measure.processor_seconds(pid)
                for _ in range(_BLOCK):
                    next(loop)
                used[name] += measure.processor_seconds(pid) - before
            jobs += _BLOCK
    rows = [[name, f"{1000 * taken / jobs:.3f}"] for name, taken in used.items()]
    title = f"By the length of a recording given as a descriptor, {jobs} jobs each"
    measure.table(title, ["", "front's CPU ms a job"], rows)


def _front(stack: contextlib.ExitStack, directory: Path) -> tuple[Front, Peer]:
    """Starts a front and connects this program as its worker."""
    front: Front = stack.enter_context(Front(directory, "0", config=_CONFIG))
    return front, stack.enter_context(front.ready())


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
        send(min(left, _BLOCK))
        left -= min(left, _BLOCK)
    while True:
        send(1)
        job, fd = worker.take_job()
        fd.close()
        worker.send("done", done(job["key"]))
        unanswered.popleft().expect("transcript")
        yield


if __name__ == "__main__":
    main()
