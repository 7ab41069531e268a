"""Recordings whose right transcript is known from Faster Whisper itself.

`python -m tests.soak.clips MODEL` prints the transcripts, with the daemon's settings. It is a
process of its own, so that the crowd's process does not load the engine.
"""

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from asrd.demo import SAMPLES
from asrd.worker.environment import WORKER_ENVIRONMENT
from tests.support.speech import pcm_s16le, recordings

BEAM_SIZE = 1
_LONG = ("en-several.wav", "en-minute.flac")
_SHORT_ONES = 24


@dataclass(frozen=True)
class Clip:
    """A recording as file and as PCM (16 kHz, mono, s16le), with the transcript of each."""

    path: Path
    language: str
    pcm: bytes
    text: str
    file_text: str


def known(model: Path, chance: random.Random) -> list[Clip]:
    """Two long recordings, then some short ones; no two have the same transcript."""
    spoken = [(r.path, r.language) for r in recordings() if r.language is not None]
    chosen = [(SAMPLES / name, "en") for name in _LONG] + chance.sample(spoken, _SHORT_ONES)
    # The environment of a worker: the number of BLAS threads shows in the last bit of the features,
    # and that bit can decide between two words.
    output = subprocess.run(
        [sys.executable, "-m", "tests.soak.clips", str(model)],
        env={**os.environ, **WORKER_ENVIRONMENT},
        input=json.dumps([(str(path), language) for path, language in chosen]),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    texts = json.loads(output)
    clips: dict[str, Clip] = {}
    for (path, language), text in zip(chosen, texts, strict=True):
        clips.setdefault(text, Clip(path, language, pcm_s16le(path), text, text))
    return list(clips.values())


def _print_texts(model: str) -> None:
    from faster_whisper import WhisperModel

    whisper = WhisperModel(model, device="cpu", cpu_threads=1)
    texts = []
    for path, language in json.load(sys.stdin):
        segments, _ = whisper.transcribe(path, beam_size=BEAM_SIZE, language=language)
        heard = list(segments)
        # Above temperature 0 Whisper samples at random, so that no answer would be the right one.
        if any(segment.temperature for segment in heard):
            raise ValueError(f"{path} needs the temperature fallback")
        texts.append("".join(segment.text for segment in heard).strip())
    print(json.dumps(texts))


if __name__ == "__main__":
    _print_texts(sys.argv[1])
