"""Recordings whose right transcript is known: that of the engine while nothing disturbs it. (Tests
of the engine compare it with Faster Whisper.)

`python -m tests.soak.clips MODEL` prints the transcripts, with the daemon's settings. It is a
process of its own, so that the crowd's process does not load the engine.
"""

import json
import os
import random
import subprocess
import sys
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asrd import Client
from asrd.demo import SAMPLES
from asrd.settings import WorkerSettings
from asrd.worker.environment import WORKER_ENVIRONMENT
from tests.support import speech
from tests.support.raw import PCM

_SHORT_ONES = 24
_DEMOS = ("en-several.wav", "en-minute.flac")
# Without chance, and without the text before as a prompt.
_STEADY: dict[str, Any] = {"temperature": 0.0, "condition_on_previous_text": False}
# Long recordings: seconds, channels, and the options with which each way through the engine is
# interrupted. With one temperature the text before may be a prompt, too.
_LONG: list[tuple[float, int, dict[str, Any]]] = [
    (95, 1, _STEADY),
    (240, 1, _STEADY),
    (420, 1, _STEADY),
    (150, 1, {**_STEADY, "vad_filter": True}),
    (210, 1, {**_STEADY, "batch_size": 4}),
    (130, 1, {**_STEADY, "condition_on_previous_text": True}),
    (70, 2, {**_STEADY, "split_channels": True}),
]
_REAL_LONG = [(0.4 * seconds, channels, options) for seconds, channels, options in _LONG]
_RATE = 16_000
_SECONDS_MAX = 3600.0
# The share of equal words in the texts of two machines.
_ALIKE = 0.8


@dataclass(frozen=True)
class Clip:
    """A recording as file and as PCM (16 kHz, s16le), with the transcript of each. `options` are
    those of the request: the language, and what it needs to have this transcript."""

    path: Path
    pcm: bytes
    text: str
    file_text: str
    options: Mapping[str, Any]
    channels: int = 1

    @property
    def format(self) -> dict[str, Any]:
        return {**PCM, "channels": self.channels}

    @property
    def language(self) -> str:
        return str(self.options["language"])

    @property
    def windows(self) -> int:
        """The windows of 30 s that the engine has to hear, one for a part of one."""
        seconds = len(self.pcm) / 2 / _RATE
        return max(1, -int(-seconds // 30))


class Clips(NamedTuple):
    """Recordings that need no option but the language, most of them short, and `long` ones of
    several windows."""

    plain: Sequence[Clip]
    long: Sequence[Clip]


class _Wanted(NamedTuple):
    path: Path
    pcm: bytes
    options: dict[str, Any]
    channels: int = 1


def known(model: Path, chance: random.Random, tmp: Path) -> Clips:
    """Returns recordings that the demo model knows the words of; long ones are written to `tmp`."""
    spoken = [(r.path, r.language) for r in speech.recordings() if r.language is not None]
    chosen = [(SAMPLES / name, "en") for name in _DEMOS] + chance.sample(spoken, _SHORT_ONES)
    plain = [
        _Wanted(path, speech.pcm_s16le(path), {"language": language}) for path, language in chosen
    ]

    def long(seconds: float, channel: int) -> NDArray[np.float32]:
        return speech.long_recording(seconds, seed=round(seconds) + channel)[0]

    return _with_texts(model, plain, _long(tmp, _LONG, long))


def known_real(model: Path, chance: random.Random, tmp: Path) -> Clips:
    """Returns recordings of real people for a real English model."""
    from tests.support.real import speech as real

    sentences = real.sentences()
    plain = []
    for clip in chance.sample(sentences, min(_SHORT_ONES, len(sentences))):
        path = tmp / f"{clip.path.stem}.wav"
        plain.append(_Wanted(path, _written(path, [clip.audio]), {"language": "en"}))

    def long(seconds: float, channel: int) -> NDArray[np.float32]:
        return real.joined(chance.sample(sentences, len(sentences)), seconds)[0]

    return _with_texts(model, plain, _long(tmp, _REAL_LONG, long))


def heard_by(socket: str, clips: Clips) -> Clips:
    """Returns the recordings with the texts of a daemon that nothing disturbs.

    Its numpy may be another one than ours: the last bit of the features can decide between two
    words where the model is not sure. A text that differs by more than that is an error.
    """
    with Client(socket) as client:

        def heard(clip: Clip) -> Clip:
            text = client.transcribe(clip.pcm, **clip.format, **clip.options).text
            alike = SequenceMatcher(None, text.split(), clip.text.split(), autojunk=False).ratio()
            assert alike > _ALIKE, f"{clip.path.name}: {text!r} instead of {clip.text!r}"
            return replace(clip, text=text, file_text=text)

        return Clips([heard(clip) for clip in clips.plain], [heard(clip) for clip in clips.long])


def _long(tmp: Path, plan: Any, make: Any) -> list[_Wanted]:
    found = []
    for number, (seconds, channels, options) in enumerate(plan):
        path = tmp / f"long-{number}.wav"
        pcm = _written(path, [make(seconds, channel) for channel in range(channels)])
        found.append(_Wanted(path, pcm, {"language": "en", **options}, channels))
    return found


def _written(path: Path, channels: list[NDArray[np.float32]]) -> bytes:
    """Writes a WAV file, and returns its samples."""
    size = min(map(len, channels))
    frames = np.stack([samples[:size] for samples in channels], axis=1)
    pcm = np.round(frames * 32768).clip(-32768, 32767).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((len(channels), 2, _RATE, size, "NONE", ""))
        file.writeframes(pcm)
    return pcm


def _with_texts(model: Path, plain: list[_Wanted], long: list[_Wanted]) -> Clips:
    """Drops those without a right transcript. No two have the same one."""
    wanted = [(str(each.path), each.options) for each in plain + long]
    # The environment of a worker: the number of BLAS threads shows in the last bit of the features,
    # and that bit can decide between two words.
    output = subprocess.run(
        [sys.executable, "-m", "tests.soak.clips", str(model)],
        env={**os.environ, **WORKER_ENVIRONMENT},
        input=json.dumps(wanted),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    texts = json.loads(output)
    clips: dict[str, Clip] = {}
    for (path, pcm, options, channels), text in zip(plain + long, texts, strict=True):
        if text is not None:
            clips.setdefault(text, Clip(path, pcm, text, text, options, channels))
    paths = {each.path for each in long}
    return Clips(
        [clip for clip in clips.values() if clip.path not in paths],
        [clip for clip in clips.values() if clip.path in paths],
    )


def _print_texts(model: str) -> None:
    from asrd.engine.whisper import load_engine

    settings = WorkerSettings(model=model, device="cpu", cpu_threads=1, check_model=False)
    engine = load_engine(settings)
    texts = []
    for path, options in json.load(sys.stdin):
        found = _heard(engine, path, options)
        # Above temperature 0 Whisper samples at random, so that no answer is the right one.
        steady = not any(segment.temperature for segment in found.segments)
        texts.append("".join(s.text for s in found.segments).strip() if steady else None)
    print(json.dumps(texts))


def _heard(engine: Any, path: str, options: Mapping[str, Any]) -> Any:
    from asrd.wire.fields import parse
    from asrd.wire.options import Options
    from asrd.wire.records import AudioFormat

    def ignore(*_: object) -> None:
        pass

    with (
        open(path, "rb") as file,
        engine.prepare(
            file.fileno(),
            AudioFormat("file"),
            parse(Options, options),
            max_audio_seconds=_SECONDS_MAX,
            on_progress=ignore,
        ) as prepared,
    ):
        return engine.run(prepared, ignore, ignore, ignore)


if __name__ == "__main__":
    _print_texts(sys.argv[1])
