"""Synthesises the training clips and stores their features: 46.7 hours of speech, 3 GB."""

import argparse
import functools
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from dataset import Example, save
from faster_whisper.feature_extractor import FeatureExtractor
from synth import training_clip
from vocabulary import SAMPLE_RATE, WINDOW_FRAMES

# The number of clips of each kind, and the distance between the kinds' first seeds.
_KINDS = {"short": 9000, "none": 900, "mid": 7000, "long": 2200, "full": 2000}
_SEEDS_APART = 1_000_000
_SHARD = 100
_HOP = 160  # samples in a frame


class Shard(NamedTuple):
    kind: str
    seeds: range
    path: Path


def shards(directory: Path, percent: float) -> Iterator[Shard]:
    for i, (kind, full_count) in enumerate(_KINDS.items()):
        first = i * _SEEDS_APART
        end = first + max(1, round(full_count * percent / 100))
        for start in range(first, end, _SHARD):
            path = directory / f"{kind}-{start:07d}.pkl"
            yield Shard(kind, range(start, min(start + _SHARD, end)), path)


def make(shard: Shard) -> float:
    """Returns the seconds of audio that were made: 0 if the shard exists from an earlier run."""
    if shard.path.exists():
        return 0.0
    extract = _extractor()
    examples, seconds = [], 0.0
    for seed in shard.seeds:
        clip = training_clip(seed, shard.kind)
        frames = min(len(clip.audio) // _HOP, WINDOW_FRAMES)
        features = extract(clip.audio)[:, :frames].astype(np.float16)
        examples.append(Example(features, clip.language, clip.utterances, shard.kind == "full"))
        seconds += len(clip.audio) / SAMPLE_RATE
    save(examples, shard.path)
    return seconds


@functools.cache
def _extractor() -> FeatureExtractor:
    return FeatureExtractor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--percent", type=float, default=100.0, help="of the clips, for a trial")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    directory = arguments.work / "data"
    directory.mkdir(parents=True, exist_ok=True)
    jobs = list(shards(directory, arguments.percent))
    began, seconds = time.monotonic(), 0.0
    with multiprocessing.Pool(arguments.processes) as pool:
        for done, made in enumerate(pool.imap(make, jobs), 1):
            seconds += made
            if done % 10 == 0 or done == len(jobs):
                elapsed = time.monotonic() - began
                print(f"{done}/{len(jobs)} shards, {seconds:.0f} s of audio in {elapsed:.0f} s")


if __name__ == "__main__":
    main()
