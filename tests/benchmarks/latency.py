"""Added latency over faster-whisper in the caller's own process; the floor of two bare hops and the
peers in the same run.

    python -m tests.benchmarks.latency [--seconds S] [--starts N] [--lengths L ...] [--ways W ...]

All ways take turns with the same model, one thread, beam 1, English, temperature 0; what counts is
the median of the differences within each round. Where a process lies in memory makes it faster or
slower for all its life, by as much as is measured here: so all are started anew, this one too, N
times, and the median of the starts' medians is shown with the lowest and the highest. All processes
have the environment that asrd gives its workers (asrd/worker/environment.py), the peers too; with
`--untuned` only asrd's workers have it.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from faster_whisper import WhisperModel
from numpy.typing import NDArray

from asrd import Client
from asrd.demo import MODEL
from tests.benchmarks.floor import Floor, floor
from tests.benchmarks.measure import (
    RATE,
    as_a_worker,
    daemon,
    differences,
    interleave,
    machine,
    median_ms,
    parser,
    pcm,
    speech,
    table,
)
from tests.benchmarks.peers import WYOMING, Wyoming, missing, serving
from tests.support.raw import Peer as RawPeer

_OPTIONS: dict[str, Any] = {"language": "en", "temperature": 0.0}
_BASE, _FLOOR = "in process", "floor, no model"
# Ten minutes on a busy machine.
_PATIENCE = 600.0
Ways = dict[str, Callable[[], object]]


def main() -> None:
    arguments = _arguments()
    if not arguments.untuned:
        as_a_worker("tests.benchmarks.latency")
    if arguments.one_start:
        print(json.dumps(_one_start(arguments)))
        return
    print(machine())
    starts = [_started_anew(arguments.seconds / arguments.starts) for _ in range(arguments.starts)]
    for measured in zip(*starts, strict=True):
        _report(measured)


def _started_anew(seconds: float) -> list[dict[str, Any]]:
    argv = [sys.executable, "-m", "tests.benchmarks.latency", *sys.argv[1:]]
    argv += ["--one-start", "--seconds", str(seconds)]
    told: list[dict[str, Any]]
    told = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout)
    return told


def _one_start(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Of each length: its title, the seconds that each way took, and the ways that are missing."""
    # A round of ten minutes takes long: it gets half of the time.
    shares = [3 if length > 60 else 1 for length in arguments.lengths]
    with contextlib.ExitStack() as stack:
        bench = _Bench(stack)
        return [
            bench.measure(length, arguments.seconds * share / sum(shares), arguments.ways)
            for length, share in zip(arguments.lengths, shares, strict=True)
        ]


def _report(starts: tuple[dict[str, Any], ...]) -> None:
    times = [start["times"] for start in starts]
    bare = statistics.median(median_ms(start[_FLOOR]) for start in times)
    rows = []
    for name in times[0]:
        taken = statistics.median(median_ms(start[name]) for start in times)
        row = [name, f"{taken:.2f}", "", "", ""]
        if name not in (_BASE, _FLOOR):
            added = [statistics.median(differences(start[name], start[_BASE])) for start in times]
            middle = statistics.median(added)
            lowest_highest = f"{min(added):+.2f} … {max(added):+.2f}"
            row[2:] = [f"{middle:+.2f}", lowest_highest, f"{middle / bare:.1f}"]
        rows.append(row)
    if starts[0]["absent"]:
        rows.append([WYOMING, starts[0]["absent"], "", "", ""])
    rounds = sum(len(start[_BASE]) for start in times)
    header = ["way", "p50 ms", "added ms, paired p50", "of each start", "added ÷ floor"]
    table(f"{starts[0]['title']}, {rounds} rounds in {len(times)} starts", header, rows)


def _arguments() -> argparse.Namespace:
    made = parser(__doc__, 180)
    made.add_argument("--lengths", type=float, nargs="*", default=[1, 5, 30, 600])
    made.add_argument("--ways", nargs="*", default=[""], help="those with any of these in the name")
    made.add_argument("--untuned", action="store_true")
    made.add_argument("--starts", type=int, default=5, help="default: %(default)s")
    made.add_argument("--one-start", action="store_true", help=argparse.SUPPRESS)
    return made.parse_args()


class _Bench:
    """Everything that is compared, started once."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        self._directory = Path(directory)
        self._model = WhisperModel(str(MODEL), device="cpu", cpu_threads=1)
        path = stack.enter_context(daemon())
        self._floor: Floor = stack.enter_context(floor(directory))
        self._client = stack.enter_context(Client(path))
        self._raw = stack.enter_context(RawPeer.connect(path))
        self._raw.sock.settimeout(_PATIENCE)
        self._wyoming = stack.enter_context(contextlib.closing(Wyoming(path)))
        self._absent = missing()
        self._peer = None if self._absent else stack.enter_context(serving())

    def measure(self, length: float, seconds: float, wanted: list[str]) -> dict[str, Any]:
        audio = speech(length)
        warm, least = (1, 2) if length > 60 else (3, 3)
        ways = {
            name: way
            for name, way in self._ways(audio).items()
            if name in (_BASE, _FLOOR) or any(part in name for part in wanted)
        }
        times = interleave(ways, seconds, warm, least)
        title = f"{length:g} s of audio{self._retries(audio)}"
        return {"title": title, "times": times, "absent": self._absent}

    def _retries(self, audio: NDArray[Any]) -> str:
        """wyoming-faster-whisper can't be told a temperature: whether that costs it anything."""
        segments, _ = self._model.transcribe(audio, beam_size=1, language="en")
        again = sum(segment.temperature > 0 for segment in segments)
        if not again:
            return ""
        return f" (wyoming-faster-whisper decodes {again} segments again, at other temperatures)"

    def _ways(self, audio: NDArray[Any]) -> Ways:
        data = pcm(audio)
        ask = partial(self._client.transcribe, **_OPTIONS)
        raw, wav = self._directory / "audio.pcm", self._directory / "audio.wav"
        raw.write_bytes(data)
        _write_wav(wav, data)
        ways: Ways = {
            _BASE: partial(self._in_process, audio),
            _FLOOR: partial(self._floor.ask, data),
            "asrd, payload": partial(self._payload, data),
            "asrd, memfd (numpy array)": partial(ask, audio),
            "asrd, descriptor of a PCM file": partial(ask, raw, encoding="pcm_s16le"),
            "asrd, descriptor of a WAV file": partial(ask, wav),
            "asrd, Wyoming stream": partial(self._wyoming.ask, data),
        }
        if self._peer is not None:
            ways[WYOMING] = partial(self._peer.ask, data)
        return ways

    def _in_process(self, audio: NDArray[Any]) -> None:
        list(self._model.transcribe(audio, beam_size=1, **_OPTIONS)[0])

    def _payload(self, data: bytes) -> None:
        audio = {"encoding": "pcm_s16le", "sample_rate": RATE, "channels": 1}
        self._raw.send("transcribe", {"job_id": "p", "audio": audio, **_OPTIONS}, data)
        if self._raw.answer("p").type != "transcript":
            raise RuntimeError("no transcript")


def _write_wav(path: Path, data: bytes) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(data)


if __name__ == "__main__":
    main()
