"""Word error rates with hints of several kinds and lengths, compared with those without hints.

    python -m tests.benchmarks.hints [--models NAME ...] [--lengths CHARACTERS ...]

Real weights transcribe real speech (tests/real): some sentences one by one, and a minute made of
others. Beam 5, int8, one thread.
"""

import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks import measure
from tests.real.conftest import load
from tests.support.engine_jobs import transcribe
from tests.support.real import weights
from tests.support.real.hinting import KINDS
from tests.support.real.speech import joined, sentences, word_error_rate

# The arguments that carry the hints; faster-whisper has the same names.
WAYS: dict[str, Callable[[str], dict[str, Any]]] = {
    "hotwords": lambda text: {"hotwords": text},
    "both": lambda text: {"hotwords": text, "initial_prompt": text},
    "hotwords, no conditioning": lambda text: {
        "hotwords": text,
        "condition_on_previous_text": False,
    },
}
_SHORT = 8


class _Material:
    """A model and the recordings that it transcribes once for each row of the table."""

    def __init__(self, name: str) -> None:
        clips = sentences()
        minute, said = joined(clips[_SHORT:], 60)
        self._audio = [*((clip.audio, clip.known_text) for clip in clips[:_SHORT]), (minute, said)]
        self._engine = load(weights.directory(name))

    def measure(self, **options: Any) -> tuple[float, int, float]:
        """Returns the word error rate, the number of empty transcripts, and the seconds."""
        started = time.monotonic()
        texts = [transcribe(self._engine, audio, **options).text for audio, _ in self._audio]
        taken = time.monotonic() - started
        said = [text for _, text in self._audio]
        rate = word_error_rate(zip(said, texts, strict=True))
        return rate, sum(not text.strip() for text in texts), taken


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--models", nargs="*", default=list(weights.MODELS), metavar="NAME")
    parser.add_argument("--lengths", nargs="*", type=int, default=[20, 400, 1100, 4096])
    arguments = parser.parse_args()
    measure.use_worker_environment()
    print(measure.machine())
    for name in arguments.models:
        _report(name, _Material(name), arguments.lengths)


def _report(name: str, material: _Material, lengths: list[int]) -> None:
    material.measure()
    without = {way: material.measure(**_without(make)) for way, make in WAYS.items()}
    rows = [["none", "0", *(_cell(*found, without[way]) for way, found in without.items())]]
    for kind, text in KINDS.items():
        for length in lengths:
            cells = [
                _cell(*material.measure(**make(text(length))), without[way])
                for way, make in WAYS.items()
            ]
            rows.append([kind, str(length), *cells])
            print(rows[-1], flush=True)
    title = f"{name}: word error rate, ÷ that without hints, time ÷ that without hints"
    measure.table(title, ["hints", "characters", *WAYS], rows)


def _without(make: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in make("").items() if value != ""}


def _cell(rate: float, empty: int, seconds: float, without: tuple[float, int, float]) -> str:
    note = f", {empty} empty" if empty else ""
    return f"{rate:.3f}, {rate / without[0]:.2f}, {seconds / without[2]:.1f}{note}"


if __name__ == "__main__":
    main()
