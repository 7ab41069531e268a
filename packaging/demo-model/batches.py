"""Batches: padded tensors of examples of similar length, with slightly degraded features."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from dataset import Example
from numpy.typing import NDArray
from targets import IGNORED, Sequence, TargetMaker, position_labels
from torch import Tensor
from vocabulary import N_MELS, POSITIONS, WINDOW_FRAMES, TokenIds

# The number of positions that represent all the padding (see whisper.py).
_SAMPLED_PADDING = 24
_MAX_CLIPS = 64
_MAX_POSITIONS = 20_000  # in a batch, over all its clips


@dataclass(frozen=True)
class Batch:
    """B clips, 2T frames, L tokens.

    `spans`: (B, L, 2), first and last position of each predicted token, (0, 0) if unknown.
    `first`: the token after the prompt, which has one length in the whole batch.
    """

    features: Tensor  # (B, 80, 2T)
    labels: Tensor  # (B, T, 3)
    tokens: Tensor  # (B, L)
    targets: Tensor  # (B, L)
    spans: Tensor  # (B, L, 2)
    padding: Tensor | None  # the sampled positions
    first: int

    @property
    def positions(self) -> int:
        return int(self.features.shape[2]) // 2


class BatchMaker:
    def __init__(self, ids: TokenIds, rng: np.random.Generator) -> None:
        self._ids = ids
        self._rng = rng
        self._targets = TargetMaker(ids, rng)

    def plan(self, pool: list[Example], halve_short: bool) -> list[list[Example]]:
        """Returns one epoch: clips of similar length together, the batches in random order.
        `halve_short` drops half of the short clips, which would outnumber the long ones."""
        rng = self._rng
        order = rng.permutation(len(pool)).tolist()
        if halve_short:
            order = [i for i in order if pool[i].frames > 500 or rng.random() < 0.5]
        order.sort(key=lambda i: pool[i].frames + rng.integers(0, 60))
        batches: list[list[Example]] = [[]]
        for i in order:
            batches[-1].append(pool[i])
            count = len(batches[-1])
            if count >= _MAX_CLIPS or count * (pool[i].frames / 2 + 16) >= _MAX_POSITIONS:
                batches.append([])
        return [batches[i] for i in rng.permutation(len(batches)) if batches[i]]

    def collate(self, examples: list[Example], prompts: bool) -> Batch:
        prompt_length = self._prompt_length() if prompts else 0
        if prompt_length >= 40:  # as many tokens as the text
            examples = examples[: max(4, len(examples) // 2)]
        longest = max(example.frames for example in examples)
        # A few frames of real padding, and a multiple of 16 for the kernels.
        frames = min(WINDOW_FRAMES, (longest + 8 + 15) // 16 * 16)
        features = np.zeros((len(examples), N_MELS, frames), np.float32)
        labels = np.zeros((len(examples), frames // 2, 3), np.int64)
        sequences = []
        for k, example in enumerate(examples):
            features[k, :, : example.frames] = self._degraded(example)
            labels[k] = position_labels(example.utterances, frames // 2)
            sequences.append(self._targets.sequence(example, prompt_length))
        tokens, targets, spans = self._pad(sequences)
        return Batch(
            torch.from_numpy(features),
            torch.from_numpy(labels),
            torch.from_numpy(tokens),
            torch.from_numpy(targets),
            torch.from_numpy(spans),
            self._sample_padding(frames),
            prompt_length + 1 if prompt_length else 0,
        )

    def _prompt_length(self) -> int:
        rng = self._rng
        if rng.random() >= 0.2:
            return 0
        return int(rng.integers(1, 40)) if rng.random() < 0.7 else int(rng.integers(40, 223))

    def _degraded(self, example: Example) -> NDArray[np.floating[Any]]:
        """Changes the loudness, adds noise, and masks up to two bands."""
        rng = self._rng
        features = example.features.astype(np.float32)
        if not example.utterances or rng.random() >= 0.7:
            return features
        degraded = features + rng.uniform(-0.15, 0.15)
        degraded = degraded + rng.normal(0, rng.uniform(0, 0.08), degraded.shape)
        for _ in range(rng.integers(0, 3)):
            low = rng.integers(0, N_MELS)
            degraded[low : low + rng.integers(1, 8)] = degraded.mean()
        return degraded

    def _pad(
        self, sequences: list[Sequence]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        shape = len(sequences), max(len(sequence.inputs) for sequence in sequences)
        tokens = np.full(shape, self._ids.endoftext)
        targets = np.full(shape, IGNORED)
        spans = np.zeros((*shape, 2), np.float32)
        for k, sequence in enumerate(sequences):
            tokens[k, : len(sequence.inputs)] = sequence.inputs
            targets[k, : len(sequence.targets)] = sequence.targets
            for j, span in enumerate(sequence.guides):
                if span:
                    spans[k, j] = max(0.0, span[0]), span[1]
        return tokens, targets, spans

    def _sample_padding(self, frames: int) -> Tensor | None:
        """Draws one position from each of 24 equal parts of the padding."""
        if frames == WINDOW_FRAMES:
            return None
        edges = np.linspace(frames // 2, POSITIONS, _SAMPLED_PADDING + 1)
        drawn = edges[:-1] + self._rng.random(_SAMPLED_PADDING) * np.diff(edges)
        return torch.from_numpy(np.minimum(POSITIONS - 1, drawn).astype(np.int64))
