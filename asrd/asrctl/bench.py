"""`asrctl bench`: how fast the running daemon is, for one client and for several at once."""

import argparse
from pathlib import Path

import anyio

from asrd.asrctl.measuring import Speed, measure, recording
from asrd.asrctl.streams import complain, show
from asrd.asrctl.table import aligned
from asrd.client.client import Client
from asrd.exitcodes import Exit
from asrd.safe_text import one_line
from asrd.snapshot import Snapshot, Worker, read_snapshot

# For all measurements, and for each.
_LIMIT_SECONDS, _SECONDS = 60.0, 20.0


def run(args: argparse.Namespace) -> int:
    """Raises AsrdError."""
    with Client(args.socket) as client:
        path, snapshot = client.socket, read_snapshot(client.status())
    show("".join(f"{one_line(line)}\n" for line in _described(snapshot)))
    audio = recording(args.model or next((w.model for w in snapshot.workers), None))
    clients = args.clients or max(2, len(snapshot.workers))
    end = anyio.run(_measure, args, path, audio, sorted({1, clients}))
    if end is Exit.DEADLINE:
        complain(f"not everything was measured within {_LIMIT_SECONDS:g} s")
    return end


def _described(snapshot: Snapshot) -> list[str]:
    lines = [f"worker {worker.name}: {_worker(worker)}" for worker in snapshot.workers]
    if snapshot.queue.depth or any(worker.jobs for worker in snapshot.workers):
        lines.append("the daemon has other work now, which makes this slower")
    return lines


def _worker(worker: Worker) -> str:
    if worker.device is None:
        return worker.state
    threads = f", threads: {worker.cpu_threads}" if worker.cpu_threads else ""
    return f"{worker.model} on {worker.device} ({worker.compute_type}{threads})"


async def _measure(args: argparse.Namespace, path: str, audio: Path, counts: list[int]) -> Exit:
    found: list[Speed] = []
    with anyio.move_on_after(_LIMIT_SECONDS) as limit:
        for clients in counts:
            found.append(await measure(path, audio, clients, _SECONDS, args.model))
    if found:
        show(_page(found))
    return Exit.DEADLINE if limit.cancelled_caught else Exit.OK


def _page(found: list[Speed]) -> str:
    rows = [["clients", "median of a request", "seconds per minute of audio"]]
    rows += [[f"{s.clients}", f"{s.median:.2f} s", f"{s.per_minute:.2f}"] for s in found]
    title = f"a recording of {found[0].audio_seconds:.1f} s, again and again:"
    return "\n".join(["", title, "", *aligned(rows), ""])
