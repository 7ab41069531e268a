"""The recordings in data/speech: their text and samples, and longer recordings made of them."""

import functools
import json
import random
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from tests.support.paths import ROOT

SPEECH = ROOT / "tests" / "data" / "speech"
SAMPLE_RATE = 16_000

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class Recording:
    """One recording. `translation` is the English text of a foreign one; `language` is None where
    nobody speaks."""

    name: str
    language: str | None
    text: str
    seconds: float
    translation: str | None

    @property
    def path(self) -> Path:
        return SPEECH / self.name

    @property
    def audio(self) -> Audio:
        return load(self.path)


@functools.cache
def recordings() -> tuple[Recording, ...]:
    lines = (SPEECH / "references.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(
        Recording(
            reference["file"],
            reference["language"],
            reference["text"],
            reference["seconds"],
            reference.get("translation"),
        )
        for reference in map(json.loads, lines)
    )


def spoken(language: str | None) -> list[Recording]:
    """Returns the recordings in one language; None for those in which nobody speaks."""
    return [recording for recording in recordings() if recording.language == language]


def load(path: Path) -> Audio:
    """Returns the samples of a mono file of 16 kHz, as faster-whisper takes them."""
    return _samples(path).astype(np.float32) / np.float32(32768)


def pcm_s16le(path: Path) -> bytes:
    return _samples(path).astype("<i2").tobytes()


@functools.lru_cache(maxsize=128)
def _samples(path: Path) -> NDArray[np.int16]:
    with av.open(str(path)) as container:
        if container.streams.audio[0].rate != SAMPLE_RATE:
            raise ValueError(f"{path} is not of {SAMPLE_RATE} Hz")
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def word_error_rate(reference: str, hypothesis: str) -> tuple[int, int]:
    """Returns the words to insert, delete or replace, and the words in the reference."""
    wanted, found = reference.split(), hypothesis.split()
    row = list(range(len(found) + 1))
    for i, word in enumerate(wanted, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(found, 1):
            replaced = diagonal + (word != other)
            diagonal, row[j] = row[j], min(replaced, row[j] + 1, row[j - 1] + 1)
    return row[-1], len(wanted)


def long_recording(seconds: float, seed: int = 0) -> tuple[Audio, str]:
    """Returns English clips with 0.5 to 2 s of silence between them, and their text.

    Silence fills the end, where no further clip fits. The same for the same arguments.
    """
    chance = random.Random(seed)
    clips = spoken("en")
    audio = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    words: list[str] = []
    start = 0
    while True:
        clip = chance.choice(clips)
        samples = clip.audio
        end = start + len(samples)
        if end > len(audio):
            return audio, " ".join(words)
        audio[start:end] = samples
        words.append(clip.text)
        start = end + round(chance.uniform(0.5, 2) * SAMPLE_RATE)
