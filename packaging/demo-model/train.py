"""Trains the model on a CPU, in phases of given minutes.

frames: the encoder alone learns to label positions; short: up to four words a clip; mid: up to
three utterances; all: also 30 s windows. The learning rate anneals over all phases together.
"""

import argparse
import math
import time
from pathlib import Path
from typing import NamedTuple

import dataset
import numpy as np
import torch
import whisper
from batches import Batch, BatchMaker
from dataset import Example
from losses import guide_loss, label_loss, text_loss
from targets import LABEL_CLASSES
from torch import Tensor, nn
from vocabulary import TokenIds
from whisper import Shape, Whisper

_KINDS = {
    "frames": ["short", "none", "mid"],
    "short": ["short", "none"],
    "mid": ["short", "none", "mid"],
    "all": ["short", "none", "mid", "long", "full"],
}
# The encoder learns its labels well at a higher rate and with a longer warm-up.
_FRAMES_RATE = 2.0
_WARM_UP_STEPS = {"frames": 150, "short": 150, "mid": 60, "all": 60}
_FINAL_RATE = 0.03
_GUIDE_WEIGHT = 0.3
_LABEL_WEIGHT = 1.0
_DROPOUT = 0.05
_WEIGHT_DECAY = 0.02
_REPORT_STEPS = 10
_SAVE_STEPS = 500


class Phase(NamedTuple):
    name: str
    seconds: float


class Trainer:
    def __init__(self, model: Whisper, ids: TokenIds, rate: float, out: Path) -> None:
        self._model = model
        self._ids = ids
        self._rate = rate
        self._out = out
        self._batches = BatchMaker(ids, np.random.default_rng(5))
        self._optimizer = _optimizer(model)
        self._step = 0
        self._measures: list[dict[str, float]] = []

    def run(self, phases: list[Phase], data: Path, calibrate: bool) -> None:
        total = sum(phase.seconds for phase in phases)
        before = 0.0
        pools: dict[str, list[Example]] = {}
        for phase in phases:
            for kind in _KINDS[phase.name]:
                pools[kind] = pools.get(kind) or dataset.load(data, kind)
            pool = [example for kind in _KINDS[phase.name] for example in pools[kind]]
            print(f"phase {phase.name}: {len(pool)} clips", flush=True)
            if calibrate and self._step == 0:
                self._model.calibrate(_first_frames(pool[:64]))
            self._train(phase, pool, before, total)
            before += phase.seconds
            self._save(phase.name)
        self._save("final")

    def _train(self, phase: Phase, pool: list[Example], before: float, total: float) -> None:
        began, first_step = time.monotonic(), self._step
        simple = phase.name in ("frames", "short")
        while True:
            for examples in self._batches.plan(pool, halve_short=not simple):
                elapsed = time.monotonic() - began
                if elapsed >= phase.seconds:
                    return
                warmth = min(1.0, (self._step - first_step + 1) / _WARM_UP_STEPS[phase.name])
                self._set_rate(phase, warmth * _annealed((before + elapsed) / total))
                batch = self._batches.collate(examples, prompts=not simple)
                learn = self._learn_labels if phase.name == "frames" else self._learn_text
                self._measures.append(learn(batch))
                self._step += 1
                self._report((before + elapsed) / 60)

    def _set_rate(self, phase: Phase, share: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * share * (_FRAMES_RATE if phase.name == "frames" else 1.0)

    def _learn_labels(self, batch: Batch) -> dict[str, float]:
        with torch.autocast("cpu", torch.bfloat16):
            logits = self._model.labels(batch.features, batch.padding)
        loss, accuracy = label_loss(logits, batch.labels)
        self._update(loss)
        return {"labels": loss.item(), "word-before": accuracy}

    def _learn_text(self, batch: Batch) -> dict[str, float]:
        kept = batch.targets >= 0
        with torch.autocast("cpu", torch.bfloat16):
            logits, attention, labels = self._model.train_step(
                batch.features, batch.tokens, kept, batch.padding, batch.first, _DROPOUT
            )
        text, accuracy = text_loss(logits, batch.targets[kept], self._ids)
        guide = guide_loss(attention, batch)
        label, _ = label_loss(labels, batch.labels)
        self._update(text + _GUIDE_WEIGHT * guide + _LABEL_WEIGHT * label)
        measures = {"text": text, "guide": guide, "labels": label}
        return {name: loss.item() for name, loss in measures.items()} | {"accuracy": accuracy}

    def _update(self, loss: Tensor) -> None:
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _report(self, minutes: float) -> None:
        if self._step % _SAVE_STEPS == 0:
            self._save("last")
        if self._step % _REPORT_STEPS:
            return
        # A phase's first report may still contain measures of the previous phase, with other names.
        names = self._measures[-1].keys()
        recent = [m for m in self._measures if m.keys() == names]
        means = [f"{name} {np.mean([m[name] for m in recent]):.3f}" for name in names]
        print(f"{minutes:5.1f} min, step {self._step}:", *means, flush=True)
        self._measures.clear()

    def _save(self, name: str) -> None:
        whisper.save(self._model, self._out / f"{name}.pt")


def _optimizer(model: Whisper) -> torch.optim.Optimizer:
    """Returns AdamW without weight decay for embeddings, biases and gains."""
    decayed: list[Tensor] = []
    kept: list[Tensor] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim > 1 and "embed" not in name
        (decayed if matrix else kept).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": _WEIGHT_DECAY},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-8)


def _annealed(progress: float) -> float:
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _first_frames(examples: list[Example]) -> Tensor:
    """Returns (B, 80, 300): the first three seconds, zero-padded."""
    features = np.zeros((len(examples), examples[0].features.shape[0], 300), np.float32)
    for k, example in enumerate(examples):
        features[k, :, : example.frames] = example.features[:, :300]
    return torch.from_numpy(features)


def _parse_phases(text: str) -> list[Phase]:
    phases = []
    for part in text.split(","):
        name, _, minutes = part.partition(":")
        if name not in _KINDS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(_KINDS)}")
        phases.append(Phase(name, 60 * float(minutes)))
    return phases


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--out", type=Path, help="for checkpoints (default: WORK/run)")
    parser.add_argument("--phases", type=_parse_phases, default="frames:10,mid:15,all:30")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--resume", type=Path, help="a checkpoint to continue from")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    out = arguments.out or arguments.work / "run"
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    ids = TokenIds(arguments.work / "tokenizer.json")
    if arguments.resume:
        model = whisper.load(arguments.resume)
    else:
        model = Whisper(Shape(ids.count, ids.first_timestamp, sum(LABEL_CLASSES)))
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    trainer = Trainer(model, ids, arguments.rate, out)
    trainer.run(arguments.phases, arguments.work / "data", calibrate=not arguments.resume)


if __name__ == "__main__":
    main()
