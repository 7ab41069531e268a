"""`asrd bench`: the compute type and the number of threads that are fastest on this CPU."""

import argparse
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio

from asrd import cores
from asrd.asrctl.measuring import Speed, measure, recording
from asrd.asrctl.table import aligned
from asrd.config import config_path, load_worker
from asrd.errors import AsrdError
from asrd.standalone import flags, private
from asrd.standalone.model_choice import ensure_model
from asrd.standalone.pool import worker_environment

# The first one is the default on a CPU.
_TYPES = ("int8", "float32")
_SECONDS_EACH = 15.0
# Differences below this are noise: then fewer threads are better.
_ALIKE = 1.03
_HEADER = ["compute type", "threads", "one request", "seconds per minute of audio", "memory"]


@dataclass(frozen=True, slots=True)
class Way:
    """The settings of a worker."""

    compute_type: str
    threads: int


@dataclass(frozen=True, slots=True)
class Result:
    """The speed in one way and the worker's largest memory, or the reason why there is none."""

    way: Way
    speed: Speed | None
    mib: int = 0
    reason: str = ""

    def row(self) -> list[str]:
        first = [self.way.compute_type, str(self.way.threads)]
        if self.speed is None:
            return [*first, self.reason, "", ""]
        times = [f"{self.speed.median:.2f} s", f"{self.speed.per_minute:.2f}"]
        return [*first, *times, f"{self.mib} MiB"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="DIR-OR-NAME", help="default: the settings', else the demo model"
    )
    parser.add_argument(
        "--seconds",
        type=flags.count(1, 86_400),
        default=60,
        metavar="N",
        help="for everything; a large model may need more (default: 60)",
    )
    parser.add_argument("--config", metavar="FILE", help="the settings file (asrd.toml)")
    parser.add_argument("--yes", action="store_true", help="fetch a missing model without asking")


def bench(args: argparse.Namespace) -> int:
    """Raises AsrdError."""
    private.prepare(verbose=False)
    configured = load_worker(config_path(args.config), "0").model
    model = flags.model(args.model) or configured or "demo"
    ensure_model(model, args.yes)
    results = anyio.run(_measure_all, model, args.seconds)
    print("\n".join(report(results)))
    if not any(result.speed for result in results):
        raise AsrdError(f"nothing was measured within {args.seconds} s: --seconds N allows more")
    return 0


def ways(count: int) -> Iterator[Way]:
    """Yields those first that are likely to be fast, in case the time is over before the rest."""
    numbers = {min(count, 1 << power) for power in range(count.bit_length() + 1)}
    for kind in _TYPES:
        for threads in sorted(numbers, reverse=True):
            yield Way(kind, threads)


async def _measure_all(model: str, seconds: float) -> list[Result]:
    end = anyio.current_time() + seconds
    waiting = list(ways(cores.usable()))
    print(f"{model}: {len(waiting)} ways to run a worker, in {seconds:g} s", flush=True)
    results = []
    while waiting:
        left = max(0.0, end - anyio.current_time())
        way = waiting.pop(0)
        result = Result(way, None, reason="the time was over")
        with anyio.move_on_after(left):
            share = min(_SECONDS_EACH, left / (len(waiting) + 1))
            result = await _measure(model, way, share)
        results.append(result)
    return results


async def _measure(model: str, way: Way, seconds: float) -> Result:
    begun = anyio.current_time()
    environment = worker_environment(model, "cpu", way.compute_type, way.threads)
    async with private.private_daemon(environment) as daemon:
        try:
            await private.until_ready(daemon.supervisor)
            left = begun + seconds - anyio.current_time()
            speed = await measure(daemon.socket, recording(model), 1, left)
            return Result(way, speed, _peak_mib(daemon.supervisor.units[-1].pid))
        except AsrdError as error:
            # Inside, since a task group would wrap it.
            return Result(way, None, reason=str(error))


def _peak_mib(pid: int | None) -> int:
    """Returns the largest memory of a process until now. Raises AsrdError if it has ended."""
    lines: list[str] = []
    # A process that is being reaped has the file still, but no memory.
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) >> 10
    raise AsrdError("the worker died after its measurement")


def report(results: list[Result]) -> Iterator[str]:
    """Yields the lines of the table, and the settings that are fastest."""
    yield ""
    yield from aligned([_HEADER, *(result.row() for result in results)])
    best = fastest(results)
    if best is None:
        return
    usual = best == Way(_TYPES[0], cores.share(1))
    yield ""
    yield "the fastest for one request at a time" + (", and the default:" if usual else ":")
    yield ""
    yield f'[worker]\ncompute_type = "{best.compute_type}"\ncpu_threads = {best.threads}'
    yield ""
    yield "Several workers divide the threads; `asrctl bench` measures a running daemon."


def fastest(results: list[Result]) -> Way | None:
    """Returns the fastest way; of those that are alike, the one with the fewest threads."""
    measured = [(result.speed.per_minute, result.way) for result in results if result.speed]
    limit = _ALIKE * min((seconds for seconds, _ in measured), default=0.0)
    alike = [way for seconds, way in measured if seconds <= limit]
    return min(alike, key=lambda way: (way.threads, _TYPES.index(way.compute_type)), default=None)
