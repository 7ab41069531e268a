"""Live text: its delay behind the speaker, and its word error rate beside one shot's.

    python -m tests.benchmarks.live [--models M ...] [--audio-seconds N] [--seconds S]

Real sentences, with a pause of half a second after each, arrive at the pace of a speaker, a tenth
of a second at a time. In each round every model hears them with steps of 0.5, 1 and 2 s, and once
as a whole. One worker for each model, with the default settings; only one of them works at a time.
The delay of a word is the time from its end (as the model sees it) until the client has it as
final. Published for the same method (Macháček et al. 2023): 3.3 s on average, with large-v2 on a
GPU and steps of 1 s.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from asrd import AsyncClient, Client
from asrd.wire.client_events import Transcript
from tests.benchmarks import measure
from tests.support.real.speech import joined, sentences, word_error_rate

_STEPS_MS = (500, 1000, 2000)
_CHUNK_SECONDS = 0.1


@dataclass
class Seen:
    """Delays in seconds, of each word and from the end of the audio to the transcript."""

    words: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    text: str = ""


async def _paced(pcm: bytes, began: float) -> AsyncIterator[bytes]:
    """Yields each chunk when it would have been spoken."""
    size = 2 * round(measure.RATE * _CHUNK_SECONDS)
    for number, begin in enumerate(range(0, len(pcm), size), 1):
        await asyncio.sleep(began + number * _CHUNK_SECONDS - time.monotonic())
        yield pcm[begin : begin + size]


async def _hear(path: str, pcm: bytes, step_ms: int, seen: Seen) -> None:
    arrivals = []
    async with AsyncClient(path) as client:
        began = time.monotonic()
        chunks = _paced(pcm, began)
        async with client.live(chunks, language="en", live_step_ms=step_ms) as stream:
            async for chunk in stream:
                if chunk.text:
                    arrivals.append(time.monotonic() - began)
        seen.last.append(time.monotonic() - began - len(pcm) / 2 / measure.RATE)
    _add_delays(stream.transcript, arrivals, seen)


def _add_delays(transcript: Transcript, arrivals: list[float], seen: Seen) -> None:
    """The segments of the transcript are the chunks, with the times of their words."""
    for segment, arrival in zip(transcript.segments, arrivals, strict=True):
        seen.words += [arrival - word.end for word in segment.words or ()]
    seen.text = transcript.text


class Bench:
    """One model's daemon, and what was seen of each way: steps in ms, 0 for one shot."""

    def __init__(self, name: str, path: str, pcm: bytes) -> None:
        self.name = name
        self.seen = {step: Seen() for step in (*_STEPS_MS, 0)}
        self._path = path
        self._pcm = pcm

    def run(self, step_ms: int) -> None:
        seen = self.seen[step_ms]
        if step_ms:
            asyncio.run(_hear(self._path, self._pcm, step_ms, seen))
            return
        with Client(self._path) as client:
            began = time.monotonic()
            seen.text = client.transcribe(self._pcm, encoding="pcm_s16le", language="en").text
            seen.last.append(time.monotonic() - began)

    def rows(self, said: str) -> list[list[str]]:
        whole = self.seen[0].text
        return [
            [
                self.name,
                f"{step / 1000:g} s" if step else "one shot",
                f"{statistics.median(seen.words):.2f} s" if step else "",
                f"{measure.percentile(seen.words, 0.95):.2f} s" if step else "",
                f"{statistics.median(seen.last):.2f} s",
                f"{100 * word_error_rate([(said, seen.text)]):.1f} %",
                f"{100 * word_error_rate([(whole, seen.text)]):.1f} %" if step else "",
            ]
            for step, seen in self.seen.items()
        ]


def main() -> None:
    made = measure.parser(__doc__, 0)
    made.add_argument("--models", nargs="+", default=["tiny.en", "base"], help="default: both")
    made.add_argument("--audio-seconds", type=float, default=60, help="default: %(default)g")
    arguments = made.parse_args()
    models = {name: measure.model_named(name).path for name in arguments.models}
    audio, said = joined(sentences(), arguments.audio_seconds)
    print(measure.machine())
    with contextlib.ExitStack() as daemons:
        benches = [
            Bench(
                name,
                daemons.enter_context(measure.daemon(model=path, config="")),
                measure.pcm(audio),
            )
            for name, path in models.items()
        ]
        for number in measure.rounds(arguments.seconds):
            steps = (*_STEPS_MS[number % 3 :], *_STEPS_MS[: number % 3], 0)
            for step in steps:
                for bench in benches:
                    bench.run(step)
    header = ["model", "step", "word: p50", "p95", "end to transcript", "WER", "to one shot"]
    rows = [row for bench in benches for row in bench.rows(said)]
    table = f"{len(audio) / measure.RATE:.0f} s of speech, {len(said.split())} words"
    measure.table(table, header, rows)


if __name__ == "__main__":
    main()
