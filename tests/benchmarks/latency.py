"""Added latency over faster-whisper in the caller's own process; the floor of two bare hops and the
peers in the same run.

    python -m tests.benchmarks.latency [--seconds S] [--lengths L ...] [--ways W ...] [--untuned]

All ways take turns with the same model, one thread, beam 1, English, temperature 0; what counts is
the median of the differences within each round, with the interval that holds the true one in 95 of
100 such runs: the fewer ways, the more rounds, the narrower. All processes have the environment
that asrd gives its workers (asrd/worker/tuning.py), the peers too; with `--untuned` only asrd's
workers have it.
"""

import argparse
import contextlib
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
    median_interval,
    median_ms,
    parser,
    pcm,
    percentile,
    speech,
    table,
)
from tests.benchmarks.peers import PEERS, Peer, Wyoming, missing, serving
from tests.process.raw import Peer as RawPeer

_OPTIONS: dict[str, Any] = {"language": "en", "temperature": 0.0}
_BASE, _FLOOR = "in process", "floor, no model"
# Ten minutes on a busy machine.
_PATIENCE = 600.0
Ways = dict[str, Callable[[], object]]


def main() -> None:
    arguments = _arguments()
    if not arguments.untuned:
        as_a_worker("tests.benchmarks.latency")
    print(machine())
    # A round of ten minutes takes long: it gets half of the time.
    shares = [3 if length > 60 else 1 for length in arguments.lengths]
    with contextlib.ExitStack() as stack:
        bench = _Bench(stack)
        for length, share in zip(arguments.lengths, shares, strict=True):
            bench.measure(length, arguments.seconds * share / sum(shares), arguments.ways)


def _arguments() -> argparse.Namespace:
    made = parser(__doc__, 180)
    made.add_argument("--lengths", type=float, nargs="*", default=[1, 5, 30, 600])
    made.add_argument("--ways", nargs="*", default=[""], help="those with any of these in the name")
    made.add_argument("--untuned", action="store_true")
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
        self._absent = {name: told for name in PEERS if (told := missing(name))}
        self._peers: dict[str, Peer] = {
            name: stack.enter_context(serving(name)) for name in PEERS if name not in self._absent
        }

    def measure(self, length: float, seconds: float, wanted: list[str]) -> None:
        audio = speech(length)
        warm, least = (1, 2) if length > 60 else (3, 3)
        ways = {
            name: way
            for name, way in self._ways(audio).items()
            if name in (_BASE, _FLOOR) or any(part in name for part in wanted)
        }
        times = interleave(ways, seconds, warm, least)
        base, bare = times[_BASE], median_ms(times[_FLOOR])
        rows = []
        for name, taken in times.items():
            if name in (_BASE, _FLOOR):
                rows.append([name, f"{median_ms(taken):.2f}", "", "", "", ""])
                continue
            added = differences(taken, base)
            quartiles = f"{percentile(added, 0.25):+.2f} … {percentile(added, 0.75):+.2f}"
            middle = percentile(added, 0.5)
            row = [name, f"{median_ms(taken):.2f}", f"{middle:+.2f}"]
            least_ms, most_ms = median_interval(added)
            row.append(f"{least_ms:+.2f} … {most_ms:+.2f}")
            rows.append([*row, quartiles, f"{middle / bare:.1f}"])
        rows += [[name, told, "", "", "", ""] for name, told in self._absent.items()]
        header = ["way", "p50 ms", "added ms, paired p50", "95 %", "quartiles", "added ÷ floor"]
        table(f"{length:g} s of audio, {len(base)} rounds{self._retries(audio)}", header, rows)

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
        return ways | {name: partial(peer.ask, data) for name, peer in self._peers.items()}

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
