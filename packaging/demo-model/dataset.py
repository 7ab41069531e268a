"""The training data: features and references of each clip, in pickled shards."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from synth import Utterance

Features = NDArray[np.float16]


@dataclass(frozen=True)
class Example:
    """`features`: (80, frames), faster-whisper's log-mel, unpadded. `cut`: the last utterance may
    continue after the window."""

    features: Features
    language: str
    utterances: list[Utterance]
    cut: bool

    @property
    def frames(self) -> int:
        return int(self.features.shape[1])


def save(examples: list[Example], path: Path) -> None:
    """Writes under another name first, so that an interrupted run leaves no partial shard."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        pickle.dump(examples, file, protocol=5)
    partial.rename(path)


def load(directory: Path, kind: str) -> list[Example]:
    """Returns all clips of one kind. Raises FileNotFoundError if there are none."""
    examples: list[Example] = []
    for path in sorted(directory.glob(f"{kind}-*.pkl")):
        with path.open("rb") as file:
            examples += pickle.load(file)
    if not examples:
        raise FileNotFoundError(f"no {kind} clips in {directory}: run make_data.py first")
    return examples
