"""What training reads: features and references of each clip, in pickled shards."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from synth import Utterance

Features = NDArray[np.float16]


@dataclass(frozen=True)
class Example:
    """`features`: (80, frames), faster-whisper's own log-mel, unpadded. `cut`: the last utterance
    may go on beyond the window."""

    features: Features
    language: str
    utterances: list[Utterance]
    cut: bool

    @property
    def frames(self) -> int:
        return int(self.features.shape[1])


def save(examples: list[Example], path: Path) -> None:
    """Under another name first, so that an interrupted run leaves no half shard."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        pickle.dump(examples, file, protocol=5)
    partial.rename(path)


def load(directory: Path, kind: str) -> list[Example]:
    """All clips of one kind; raises FileNotFoundError where there are none."""
    examples: list[Example] = []
    for path in sorted(directory.glob(f"{kind}-*.pkl")):
        with path.open("rb") as file:
            examples += pickle.load(file)
    if not examples:
        raise FileNotFoundError(f"no {kind} clips in {directory}: run make_data.py first")
    return examples
