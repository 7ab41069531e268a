"""What a job costs the front as the queue grows, as idle clients stay connected, and as the
recording gets longer.

    python -m tests.benchmarks.growth [--seconds S] [--waiting N ...] [--connected N ...]

A real front; this program is its one worker, which answers at once, and its busy client, which
sends a job for each one answered: so the queue stays as long as it is. One thing happens at a time,
so `jobs/s` is one over the way there and back, this program's part included; the front's own
processor time tells its share. Twice, in the opposite order the second time.
"""

import argparse
import contextlib
import itertools
import resource
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.measure import (
    machine,
    memory_mib,
    parser,
    processor_seconds,
    seconds_of,
    table,
)
from tests.support.daemons import Front
from tests.support.raw import HELLO, Peer, done, memfd

# A tenth of a second of silence.
_AUDIO = bytes(3200)
_REQUEST = {"audio": {"encoding": "pcm_s16le", "sample_rate": 16_000, "channels": 1}}
_CONFIG = """
queue_max = 20000
jobs_max_per_connection = 10000
connections_max = 10000
connections_max_per_user = 10000
max_wait_seconds = 3600
"""
_STATUS_ASKED = 20
# Of the time, for recordings of different lengths.
_LENGTHS_SHARE = 0.2
_LENGTHS = {"5 s": 5, "10 min": 600, "1 h": 3600}
_BLOCK = 50
# Sent at once while the queue is filled.
_BURST = 50


@dataclass(frozen=True)
class Cost:
    """Of one job, in milliseconds; the front's memory, and the median of its answers to status."""

    job: float
    front: float
    memory: float
    status: float


def main() -> None:
    arguments = _arguments()
    # Each waiting job is a descriptor in the front, each idle client one on both sides.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(machine())
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


def _arguments() -> argparse.Namespace:
    made = parser(__doc__, 90)
    made.add_argument("--waiting", type=int, nargs="*", default=[0, 10, 100, 1000, 10_000])
    made.add_argument("--connected", type=int, nargs="*", default=[0, 10, 100, 500, 2000])
    return made.parse_args()


def _report(what: str, costs: dict[int, list[Cost]]) -> None:
    rows = []
    for count, found in costs.items():
        job, front, memory, status = (
            statistics.mean(getattr(cost, name) for cost in found)
            for name in ("job", "front", "memory", "status")
        )
        row = [f"{count:,}", f"{1000 / job:.0f}", f"{front:.3f}", f"{memory:.1f}", f"{status:.2f}"]
        rows.append(row)
    header = [what, "jobs/s", "front's CPU ms a job", "front's RSS MiB", "status p50 ms"]
    table(f"What a job costs with so many {what}", header, rows)


def _measure(waiting: int, connected: int, seconds: float) -> Cost:
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        front, worker = _front(stack, Path(directory))
        audio = stack.enter_context(memfd(_AUDIO))
        for _ in range(connected):
            stack.enter_context(front.connect())
        # Two, since ten thousand are the most that one connection may leave unanswered.
        clients = [stack.enter_context(front.connect()) for _ in range(2)]
        loop = _loop(clients, worker, waiting, audio.fileno())
        next(loop)
        return _run(front, loop, seconds)


def _lengths(seconds: float) -> None:
    """Descriptors of PCM (holes: nobody here reads them), in turn, a block of jobs of each."""
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
        end, jobs = time.monotonic() + seconds, 0
        while not jobs or time.monotonic() < end:
            for name, loop in loops.items():
                before = processor_seconds(pid)
                for _ in range(_BLOCK):
                    next(loop)
                used[name] += processor_seconds(pid) - before
            jobs += _BLOCK
    rows = [[name, f"{1000 * taken / jobs:.3f}"] for name, taken in used.items()]
    title = f"By the length of a recording given as a descriptor, {jobs} jobs each"
    table(title, ["", "front's CPU ms a job"], rows)


def _front(stack: contextlib.ExitStack, directory: Path) -> tuple[Front, Peer]:
    """A front, and its worker: this program."""
    front: Front = stack.enter_context(Front(directory, "0", config=_CONFIG))
    worker = stack.enter_context(front.accept())
    worker.send("hello", HELLO)
    front.wait_for_state("ready")
    return front, worker


def _run(front: Front, loop: Iterator[None], seconds: float) -> Cost:
    pid = int(front.status()["pid"])
    before, started = processor_seconds(pid), time.monotonic()
    jobs = 0
    while time.monotonic() - started < seconds:
        next(loop)
        jobs += 1
    taken, used = time.monotonic() - started, processor_seconds(pid) - before
    status = statistics.median(seconds_of(front.status) for _ in range(_STATUS_ASKED))
    memory = memory_mib(pid, "Rss")
    return Cost(1000 * taken / jobs, 1000 * used / jobs, memory, 1000 * status)


def _loop(clients: list[Peer], worker: Peer, waiting: int, audio: int) -> Iterator[None]:
    """One job sent and one answered at each step, with so many waiting all the while. The queue is
    first in, first out."""
    turns = itertools.cycle(clients)
    unanswered: deque[Peer] = deque()

    def send(count: int) -> None:
        client = next(turns)
        for _ in range(count):
            client.send("transcribe", _REQUEST, fds=(audio,))
        for _ in range(count):
            client.expect("accepted")
            unanswered.append(client)

    # One runs and the others wait.
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
