"""Short recordings: time and word errors with short and full windows, and with faster-whisper.

    python -m tests.benchmarks.short [--model NAME ...] [--compute-type T] [--beam-size N]
                                     [--temperature T] [--seconds S]

Every English recording of tests/real that has a text (those of other voices: $ASRD_TEST_SPEECH) is
transcribed by each way in turn, in one process, from its file and with the same options; the rounds
are repeated while there is time. The errors are those of the first round, and the times (of the
processor, one thread) those of the recordings of 1 to 4 s.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ctranslate2
from faster_whisper import WhisperModel

from asrd.engine.whisper import WhisperEngine, load_engine
from asrd.settings import WorkerSettings
from tests.benchmarks import measure
from tests.support.engine_jobs import ENGLISH, transcribe
from tests.support.real import weights
from tests.support.real.speech import Clip, clips, word_errors

_SHORTEST, _LONGEST = 1, 4
_RATE = 16_000
Way = Callable[[Clip], str]


def main() -> None:
    made = measure.parser(__doc__, 120)
    made.add_argument("--model", nargs="*", default=list(weights.MODELS), metavar="NAME")
    made.add_argument("--compute-type", default="int8", help="default: %(default)s")
    made.add_argument("--beam-size", type=int, default=5, help="default: %(default)s")
    made.add_argument("--temperature", type=float, help="default: faster-whisper's list")
    arguments = made.parse_args()
    measure.use_worker_environment()
    print(measure.machine())
    for name in arguments.model:
        settings = WorkerSettings(
            model=str(weights.directory(name)),
            device="cpu",
            compute_type=arguments.compute_type,
            cpu_threads=1,
        )
        options = {"beam_size": arguments.beam_size}
        if arguments.temperature is not None:
            options["temperature"] = arguments.temperature
        title = ", ".join([name, arguments.compute_type, *(f"{k} {v}" for k, v in options.items())])
        _report(title, settings, options, arguments.seconds / len(arguments.model))


def _report(title: str, settings: WorkerSettings, options: dict[str, Any], seconds: float) -> None:
    engine = load_engine(settings)
    spoken = [clip for clip in clips().values() if clip.language == "en" and clip.text is not None]
    ways: dict[str, Way] = {
        "faster-whisper": partial(_library, engine._model, options),
        "asrd, full": partial(_engine, engine, {**options, "window": "full"}),
        "asrd, short": partial(_engine, engine, {**options, "window": "short"}),
    }
    texts: dict[str, list[str]] = {name: [] for name in ways}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in measure.rounds(seconds):
        for clip in spoken:
            _turn(clip, ways, times, texts if number == 0 else {name: [] for name in ways})
    base = times["faster-whisper"]
    rows = [[name, *_errors(spoken, texts[name]), *_times(times[name], base)] for name in ways]
    header = ["", "sentences: words wrong", "missing", "digits: words wrong"]
    measure.table(title, [*header, "p50 ms", "mean ms", "÷ p50, paired", "÷ mean"], rows)


def _turn(
    clip: Clip, ways: dict[str, Way], times: dict[str, list[float]], texts: dict[str, list[str]]
) -> None:
    """Transcribes the recording in each way; those of another recording begin with another."""
    counted = _SHORTEST <= len(clip.audio) / _RATE <= _LONGEST
    names = list(ways)
    first = len(clip.path.name) % len(names)
    for name in names[first:] + names[:first]:
        # Doubtful texts are sampled.
        ctranslate2.set_random_seed(0)
        started = time.process_time()
        texts[name].append(ways[name](clip))
        if counted:
            times[name].append(time.process_time() - started)


def _library(model: WhisperModel, options: dict[str, Any], clip: Clip) -> str:
    segments, _ = model.transcribe(str(clip.path), language="en", **options)
    return "".join(segment.text for segment in segments)


def _engine(engine: WhisperEngine, options: dict[str, Any], clip: Clip) -> str:
    return transcribe(engine, clip.path.read_bytes(), ENGLISH, **options).text


def _errors(spoken: list[Clip], texts: list[str]) -> list[str]:
    found = [(clip.known_text, text) for clip, text in zip(spoken, texts, strict=True)]
    sentences = [word_errors(*each) for each in found if " " in each[0]]
    digits = [word_errors(*each) for each in found if " " not in each[0]]
    missing = sum(each.missing for each in sentences)
    return [str(sum(map(sum, sentences))), str(missing), str(sum(map(sum, digits)))]


def _times(times: list[float], base: list[float]) -> list[str]:
    paired = statistics.median(a / b for a, b in zip(times, base, strict=True))
    mean = statistics.mean(times)
    return [
        f"{measure.median_ms(times):.0f}",
        f"{1000 * mean:.0f}",
        f"{paired:.2f}",
        f"{mean / statistics.mean(base):.2f}",
    ]


if __name__ == "__main__":
    main()
