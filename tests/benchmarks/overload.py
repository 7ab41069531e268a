"""C clients in a loop, 5 s of audio each: throughput, refusals, and what `status` costs meanwhile.

    python -m tests.benchmarks.overload [--seconds S] [--clients C ...]

A client that is refused waits for as long as `retry_after_ms` says and asks again. Throughput is
compared with a bare in-process loop over the same audio, before and after in the same run.
"""

import argparse
import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from faster_whisper import WhisperModel

from asrd import AsyncClient, Client, wire
from asrd.channel import Channel
from asrd.demo import MODEL
from asrd.errors import Code
from tests.benchmarks.measure import daemon, machine, pcm, speech, table
from tests.process.daemons import resident_kib
from tests.process.raw import memfd

_CONFIG = "[worker]\ncpu_threads = 1\nbeam_size = 1\n"
_REQUEST = {
    "audio": {"encoding": "pcm_s16le", "sample_rate": 16_000, "channels": 1},
    "language": "en",
    "temperature": 0.0,
}
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Tally:
    done: int = 0
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    status: list[float] = field(default_factory=list)
    lost: int = 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 2, 8, 32, 100, 200])
    arguments = parser.parse_args()
    print(machine())
    rows = []
    for clients in arguments.clients:
        rows.append(_row(clients, arguments.seconds))
    header = ["clients", "jobs/s", "of in-process", "answer p50/p99 ms", "busy p50/p99 ms"]
    header += ["busy", "status p50/p99 ms", "lost", "front CPU %", "front MiB"]
    table(f"{arguments.seconds:g} s each", header, rows)


def _row(clients: int, seconds: float) -> list[str]:
    with daemon(config=_CONFIG) as path:
        with Client(path) as client:
            front = int(client.status()["pid"])
        bare = _in_process(seconds / 4)
        before = _cpu(front)
        tally = anyio.run(_load, path, clients, seconds)
        cpu = (_cpu(front) - before) / seconds
        memory = resident_kib(front) / 1024
        bare = (bare + _in_process(seconds / 4)) / 2
    rate = tally.done / seconds
    return [
        str(clients),
        f"{rate:.2f}",
        f"{rate / bare:.2f}",
        _percentiles(tally.answered),
        _percentiles(tally.refused),
        str(len(tally.refused)),
        _percentiles(tally.status),
        str(tally.lost),
        f"{100 * cpu:.1f}",
        f"{memory:.1f}",
    ]


def _in_process(seconds: float) -> float:
    """Jobs per second of a bare loop in this process."""
    model = WhisperModel(str(MODEL), device="cpu", cpu_threads=1)
    audio = speech(5)
    count, started = -1, time.perf_counter()
    while time.perf_counter() - started < seconds:
        list(model.transcribe(audio, beam_size=1, language="en", temperature=0.0)[0])
        count += 1
        if count == 0:
            started = time.perf_counter()
    return count / (time.perf_counter() - started)


async def _load(path: str, clients: int, seconds: float) -> Tally:
    tally = Tally()
    with memfd(pcm(speech(5))) as audio, anyio.move_on_after(seconds):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watch_status, path, tally)
            for _ in range(clients):
                tasks.start_soon(_client, path, audio.fileno(), tally)
    return tally


async def _client(path: str, audio: int, tally: Tally) -> None:
    """By hand, since the library would wait out a refusal."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    decoder = wire.Decoder(wire.Limits(data=wire.MAX_TRANSCRIPT_DATA, strict=False))
    buffer = memoryview(bytearray(65536))
    async with anyio.create_task_group() as tasks:
        channel = Channel(sock, decoder, tasks, buffer, output_max=1 << 20)
        try:
            while True:
                started = time.perf_counter()
                channel.send("transcribe", _REQUEST, [audio])
                answer = await _answer(channel)
                taken = time.perf_counter() - started
                if answer.type == "transcript":
                    tally.done += 1
                    tally.answered.append(taken)
                elif answer.data["code"] == Code.BUSY:
                    tally.refused.append(taken)
                    await anyio.sleep(answer.data["retry_after_ms"] / 1000)
                else:
                    tally.lost += 1
        finally:
            channel.close()


async def _answer(channel: Channel) -> wire.Event:
    while True:
        event = await channel.receive()
        if event is None:
            raise ConnectionError("the daemon closed the connection")
        if event.type in ("transcript", "error"):
            return event


async def _watch_status(path: str, tally: Tally) -> None:
    async with AsyncClient(path) as client:
        while True:
            started = time.perf_counter()
            await client.status()
            tally.status.append(time.perf_counter() - started)
            await anyio.sleep(0.05)


def _percentiles(times: list[float]) -> str:
    if not times:
        return "-"
    ordered = sorted(times)
    top = len(ordered) - 1
    p50, p99 = ordered[top // 2], ordered[min(top, int(0.99 * len(ordered)))]
    return f"{1000 * p50:.1f} / {1000 * p99:.1f}"


def _cpu(pid: int) -> float:
    """Seconds of processor time of the process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    main()
