"""Recordings of real people with their text, and the word error rate of a transcript.

The recordings are read from `../shared/speech` beside the checkout, or from $ASRD_TEST_SPEECH.
"""

import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jiwer
import numpy as np
from faster_whisper.audio import decode_audio

from asrd.engine.audio.reader import RATE, Samples
from tests.support.paths import ROOT
from tests.support.real.weights import Missing

with warnings.catch_warnings():
    # Its docstrings hold backslashes, which a compiler of Python warns about.
    warnings.simplefilter("ignore")
    from whisper_normalizer.english import EnglishTextNormalizer

_normalize = EnglishTextNormalizer()


@dataclass(frozen=True)
class Clip:
    """One recording. `text` is None if there is no reference."""

    path: Path
    language: str
    text: str | None

    @property
    def audio(self) -> Samples:
        samples: Samples = decode_audio(str(self.path))
        return samples

    @property
    def known_text(self) -> str:
        if self.text is None:
            raise ValueError(f"{self.path.name} has no reference")
        return self.text


def clips() -> dict[str, Clip]:
    """Returns all recordings, by file name. Raises Missing."""
    directory = Path(os.environ.get("ASRD_TEST_SPEECH") or ROOT.parent / "shared" / "speech")
    try:
        lines = (directory / "references.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Missing(
            f"no recordings in {directory} ({error.strerror}): set ASRD_TEST_SPEECH to their "
            "directory"
        ) from None
    found = map(json.loads, lines)
    return {
        each["file"]: Clip(directory / each["file"], each["language"], each["text"])
        for each in found
    }


def sentences() -> list[Clip]:
    """Returns the English recordings of two words and more with a reference."""
    return [
        clip
        for clip in clips().values()
        if clip.language == "en" and clip.text is not None and " " in clip.text
    ]


def joined(parts: Iterable[Clip], seconds: float, pause: float = 0.5) -> tuple[Samples, str]:
    """Returns the clips one after another, repeated up to `seconds`, and their text."""
    said = [(clip.audio, clip.known_text) for clip in parts]
    gap = np.zeros(round(pause * RATE), np.float32)
    samples: list[Samples] = []
    words: list[str] = []
    length = index = 0
    while True:
        audio, text = said[index % len(said)]
        length += len(audio) + len(gap)
        if length > seconds * RATE:
            return np.concatenate(samples), " ".join(words)
        samples += [audio, gap]
        words.append(text)
        index += 1


class WordErrors(NamedTuple):
    """Words that were taken for others, that are missing, and that nobody said."""

    wrong: int
    missing: int
    added: int


def word_errors(wanted: str, text: str) -> WordErrors:
    """Returns the errors of a transcript, after Whisper's normalisation of English."""
    found = jiwer.process_words(_normalize(wanted), _normalize(text))
    return WordErrors(found.substitutions, found.deletions, found.insertions)


def word_error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Returns the rate of all (reference, transcript) pairs together, after Whisper's
    normalisation of English."""
    references, found = zip(
        *((_normalize(wanted), _normalize(text)) for wanted, text in pairs), strict=True
    )
    return float(jiwer.wer(list(references), list(found)))
