"""Models whose weights are wrong, and models that fall silent while they run."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ctranslate2
import numpy as np

from asrd.engine.model_check import _variables

# A variable's bytes, of shape (rows, bytes of a row).
Rows = Any


def zeroed(rows: Rows) -> Rows:
    return np.zeros_like(rows)


def shuffled(rows: Rows) -> Rows:
    return np.random.default_rng(0).permutation(rows)


def random(rows: Rows) -> Rows:
    return np.random.default_rng(0).integers(0, 256, rows.shape, np.uint8)


def damage(model: Path, part: str, how: Callable[[Rows], Rows]) -> None:
    """Changes the variables of model.bin whose names match the expression `part`."""
    file = model / "model.bin"
    with file.open("r+b") as content:
        for name, shape, length in _variables(content, file.stat().st_size):
            if shape and re.match(part, name):
                start = content.tell()
                rows = np.frombuffer(content.read(length), np.uint8).reshape(shape[0], -1)
                content.seek(start)
                content.write(how(rows).tobytes())


class Silenced:
    """CTranslate2's model, whose generation is without text from the time when `silent` is set.

    `sound` keeps what the self-test gets as it is; `score` is the log probability per token.
    """

    def __init__(self, real: Any, silent: bool = True, sound: bool = False) -> None:
        self._real = real
        self.silent = silent
        self.sound = sound
        self.score: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def generate(self, *args: Any, return_logits_vocab: bool = False, **options: Any) -> Any:
        found = self._real.generate(*args, return_logits_vocab=return_logits_vocab, **options)
        if not self.silent or (return_logits_vocab and self.sound):
            return found
        (result,) = found
        even = [np.zeros(len(np.array(step)), np.float32) for step in (result.logits or [[]])[0]]
        changed = SimpleNamespace(
            sequences_ids=[[]],
            scores=[0.0],
            no_speech_prob=0.0,
            logits=[[ctranslate2.StorageView.from_array(step) for step in even]],
        )
        if self.score is not None:
            changed.sequences_ids, changed.scores = result.sequences_ids, [self.score]
        return [changed]
