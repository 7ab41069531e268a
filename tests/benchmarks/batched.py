"""Errors and time of the batched way, beside one window at a time, on speech of minutes.

    python -m tests.benchmarks.batched [--models NAME ...] [--batches N ...] [--threads N ...]

Real weights transcribe a recording joined from real speech. Beam 5, int8, temperature 0. The
sequential ways have no condition_on_previous_text, as batches have none. Times are the processor's,
all threads together, and the clock's; each is the least of the rounds, which interleave all ways.
"""

import time
from typing import Any

from asrd.engine.audio.reader import RATE
from asrd.engine.whisper import WhisperEngine, load_engine
from asrd.settings import WorkerSettings
from tests.benchmarks import measure
from tests.support.engine_jobs import GREEDY, transcribe
from tests.support.real import weights
from tests.support.real.speech import joined, sentences, word_error_rate


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--models", nargs="*", default=list(weights.MODELS), metavar="NAME")
    parser.add_argument("--batches", nargs="*", type=int, default=[2, 4, 8, 16], metavar="N")
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    measure.use_worker_environment()
    print(measure.machine())
    ways: dict[str, dict[str, Any]] = {
        "one at a time": {},
        "one at a time, VAD": {"vad_filter": True},
        "one at a time, VAD, no timestamps": {"vad_filter": True, "without_timestamps": True},
        **{f"batches of {size}": {"batch_size": size} for size in arguments.batches},
        "batches of 8, timestamps": {"batch_size": 8, "without_timestamps": False},
    }
    for name in arguments.models:
        for threads in arguments.threads:
            engine = _load(name, threads)
            rows = _rows(engine, ways, arguments.seconds, arguments.rounds)
            title = f"{name}, {threads} thread{'s' * (threads > 1)}, {arguments.seconds} s of audio"
            heads = ["way", "word error rate", "segments", "seconds", "÷ first", "processor's"]
            measure.table(title, heads, rows)


def _load(name: str, threads: int) -> WhisperEngine:
    path = str(weights.directory(name))
    return load_engine(
        WorkerSettings(model=path, device="cpu", compute_type="int8", cpu_threads=threads)
    )


def _rows(
    engine: WhisperEngine, ways: dict[str, dict[str, Any]], seconds: int, rounds: int
) -> list[list[str]]:
    audio, said = joined(sentences(), seconds)
    base = {"beam_size": 5, "condition_on_previous_text": None}
    least: dict[str, tuple[float, float]] = {}
    found: dict[str, tuple[float, int]] = {}
    transcribe(engine, audio[: 40 * RATE], GREEDY, vad_filter=True)
    for _ in range(rounds):
        for way, options in ways.items():
            if "batch_size" not in options:
                options = {**options, "condition_on_previous_text": False}
            clock, processor = time.monotonic(), time.process_time()
            result = transcribe(engine, audio, GREEDY, **{**base, **options})
            took = (time.monotonic() - clock, time.process_time() - processor)
            least[way] = tuple(map(min, took, least.get(way, took)))  # type: ignore[assignment]
            found[way] = (word_error_rate([(said, result.text)]), len(result.segments))
    first = next(iter(least.values()))[0]
    return [
        [way, f"{rate:.3f}", f"{count}", f"{clock:.1f}", f"{clock / first:.2f}", f"{processor:.1f}"]
        for way, (clock, processor) in least.items()
        for rate, count in [found[way]]
    ]


if __name__ == "__main__":
    main()
