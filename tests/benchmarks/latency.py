"""Latency that asrd adds to faster-whisper in the caller's own process, next to two bare hops (the
floor) and a peer.

    python -m tests.benchmarks.latency [--model M] [--seconds S] [--starts N]
        [--lengths L ...] [--ways W ...]

All ways take turns with the same model, one thread, beam 1, English, temperature 0. The result is
the median of the differences within each round. The place of a process in memory makes it faster
or slower for its whole life, by as much as is measured here. Therefore all processes, this one
included, are started N times; the table shows the median, the lowest and the highest of the starts'
medians. All processes have the environment that asrd gives its workers
(asrd/worker/environment.py).
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from asrd import Client
from tests.benchmarks import measure
from tests.benchmarks.floor import floor
from tests.benchmarks.peers import WYOMING, Wyoming, missing, serving
from tests.support.raw import PCM
from tests.support.raw import Peer as RawPeer
from tests.support.sounds import wav

_BASE, _FLOOR = "in process", "floor, no model"
# Ten minutes of audio on a busy machine.
_PATIENCE = 600.0
Ways = dict[str, Callable[[], object]]
# The seconds that each way took, by its name.
Times = dict[str, list[float]]


def main() -> None:
    made = measure.parser(__doc__, 180, "tiny.en")
    made.add_argument("--lengths", type=float, nargs="*", default=[1, 5, 30, 600])
    made.add_argument("--ways", nargs="*", default=[""], help="those with any of these in the name")
    made.add_argument("--starts", type=int, default=5, help="default: %(default)s")
    made.add_argument("--one-start", action="store_true", help=argparse.SUPPRESS)
    arguments = made.parse_args()
    measure.use_worker_environment()
    if arguments.one_start:
        print(json.dumps(_one_start(arguments)))
        return
    print(measure.machine())
    starts = [_start(arguments.seconds / arguments.starts) for _ in range(arguments.starts)]
    for length, *times in zip(arguments.lengths, *starts, strict=True):
        _report(length, times)


def _start(seconds: float) -> list[Times]:
    argv = [sys.executable, "-m", "tests.benchmarks.latency", *sys.argv[1:]]
    argv += ["--one-start", "--seconds", str(seconds)]
    times: list[Times] = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout)
    return times


def _one_start(arguments: argparse.Namespace) -> list[Times]:
    """Measures each length once. A round of ten minutes takes long: it gets half of the time."""
    shares = [3 if length > 60 else 1 for length in arguments.lengths]
    with contextlib.ExitStack() as stack:
        bench = _Bench(stack, arguments.model)
        return [
            bench.measure(length, arguments.seconds * share / sum(shares), arguments.ways)
            for length, share in zip(arguments.lengths, shares, strict=True)
        ]


def _report(length: float, times: list[Times]) -> None:
    bare = statistics.median(measure.median_ms(start[_FLOOR]) for start in times)
    rows = []
    for name in times[0]:
        taken = statistics.median(measure.median_ms(start[name]) for start in times)
        row = [name, f"{taken:.2f}", "", "", ""]
        if name not in (_BASE, _FLOOR):
            added = [
                statistics.median(measure.differences(start[name], start[_BASE])) for start in times
            ]
            middle = statistics.median(added)
            lowest_highest = f"{min(added):+.2f} … {max(added):+.2f}"
            row[2:] = [f"{middle:+.2f}", lowest_highest, f"{middle / bare:.1f}"]
        rows.append(row)
    if absent := missing():
        rows.append([WYOMING, absent, "", "", ""])
    rounds = sum(len(start[_BASE]) for start in times)
    header = ["way", "p50 ms", "added ms, paired p50", "of each start", "added ÷ floor"]
    title = f"{length:g} s of audio, {rounds} rounds in {len(times)} starts"
    measure.table(title, header, rows)


class _Bench:
    """All servers and clients that are compared."""

    def __init__(self, stack: contextlib.ExitStack, model: measure.Model) -> None:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        self._directory = Path(directory)
        self._model = model
        self._in_process = model.library()
        path = stack.enter_context(measure.daemon(model=model.path))
        self._floor = stack.enter_context(floor(directory))
        self._client = stack.enter_context(Client(path))
        self._raw = stack.enter_context(RawPeer.connect(path))
        self._raw.sock.settimeout(_PATIENCE)
        self._wyoming = stack.enter_context(contextlib.closing(Wyoming(path)))
        self._peer = None if missing() else stack.enter_context(serving(model.path))

    def measure(self, length: float, seconds: float, wanted: list[str]) -> Times:
        warm, least = (1, 2) if length > 60 else (3, 3)
        ways = {
            name: way
            for name, way in self._ways(self._model.speech(length)).items()
            if name in (_BASE, _FLOOR) or any(part in name for part in wanted)
        }
        return measure.interleave(ways, seconds, warm, least)

    def _ways(self, audio: NDArray[Any]) -> Ways:
        data = measure.pcm(audio)
        ask = partial(self._client.transcribe, **measure.ASKED)
        pcm_file, wav_file = self._directory / "audio.pcm", self._directory / "audio.wav"
        pcm_file.write_bytes(data)
        wav_file.write_bytes(wav(data))
        ways: Ways = {
            _BASE: partial(self._in_process, audio),
            _FLOOR: partial(self._floor.ask, data),
            "asrd, payload": partial(self._payload, data),
            "asrd, memfd (numpy array)": partial(ask, audio),
            "asrd, descriptor of a PCM file": partial(ask, pcm_file, encoding="pcm_s16le"),
            "asrd, descriptor of a WAV file": partial(ask, wav_file),
            "asrd, Wyoming stream": partial(self._wyoming.ask, data),
        }
        if self._peer is not None:
            ways[WYOMING] = partial(self._peer.ask, data)
        return ways

    def _payload(self, data: bytes) -> None:
        self._raw.send("transcribe", {"job_id": "p", "audio": PCM, **measure.ASKED}, data)
        if self._raw.answer("p").type != "transcript":
            raise RuntimeError("no transcript")


if __name__ == "__main__":
    main()
