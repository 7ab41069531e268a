"""The losses: cross entropy of the text, guides of the attention, labels of the positions."""

import torch
from batches import Batch
from targets import IGNORED, LABEL_CLASSES
from torch import Tensor
from torch.nn import functional
from vocabulary import TokenIds
from whisper import GUIDES

# The target is spread over a timestamp's neighbours: an error of 20 ms is small.
_SPREAD = (0.1, 0.2, 0.4, 0.2, 0.1)
_WORDS_BEFORE_WEIGHT = 0.4


def label_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """From (B, T, classes) and (B, T, 3), returns the loss, and the share of voiced positions
    whose previous word is right. The share shows early if the words are distinguished at all."""
    loss = torch.zeros(())
    accuracy = 1.0
    for n, part in enumerate(torch.split(logits.float(), LABEL_CLASSES, -1)):
        wanted = labels[..., n]
        known = wanted != IGNORED
        weight = _WORDS_BEFORE_WEIGHT if n else 1.0
        total = functional.cross_entropy(
            part.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        loss = loss + weight * total / max(1, int(known.sum()))
        if n == 1 and known.any():
            accuracy = float((part.argmax(-1) == wanted)[known].float().mean())
    return loss, accuracy


def text_loss(logits: Tensor, targets: Tensor, ids: TokenIds) -> tuple[Tensor, float]:
    """From (N, vocab) and (N,), returns the loss, and the accuracy without the timestamps."""
    logs = logits.float().log_softmax(-1)
    losses = -logs.gather(1, targets[:, None])[:, 0]
    timestamps = targets >= ids.first_timestamp
    if timestamps.any():
        neighbours = targets[timestamps][:, None] + torch.arange(-2, 3)
        neighbours = neighbours.clamp(ids.first_timestamp, ids.count - 1)
        losses = losses.clone()
        shared = logs[timestamps].gather(1, neighbours) * torch.tensor(_SPREAD)
        losses[timestamps] = -shared.sum(1)
    right = (logs.argmax(-1) == targets)[~timestamps]
    return losses.mean(), float(right.float().mean())


def guide_loss(attention: dict[int, Tensor], batch: Batch) -> Tensor:
    """Penalises attention of the guided heads outside the word's span. `attention` has
    (B, heads, L - first, T + sampled) by layer."""
    following = batch.spans[:, batch.first :]
    # The current token was predicted one step before.
    current = torch.cat([torch.zeros_like(following[:, :1]), following[:, :-1]], 1)
    losses = []
    for layer, log_attention in attention.items():
        spans = following if GUIDES[layer][0] == "next" else current
        known = spans[..., 1] > 0
        heads = log_attention[..., : batch.positions].permute(0, 2, 1, 3)[known]
        loss = _outside(heads, spans[known])
        if loss is not None:
            losses.append(loss)
    return torch.stack(losses).mean() if losses else torch.zeros(())


def _outside(log_attention: Tensor, spans: Tensor) -> Tensor | None:
    """Returns the mean over (M, heads) of -log(attention in the span), or None if all are empty.
    `log_attention`: (M, heads, T), `spans`: (M, 2)."""
    positions = torch.arange(log_attention.shape[-1])
    inside = (positions >= spans[:, :1]) & (positions <= spans[:, 1:])
    reachable = inside.any(1)
    if not reachable.any():
        return None
    masked = log_attention[reachable].masked_fill(~inside[reachable][:, None], -1e4)
    return -masked.logsumexp(-1).mean()
