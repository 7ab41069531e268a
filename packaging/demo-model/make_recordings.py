"""Synthesises the recordings in the repository: the demo's samples and the tests' speech.

None of them is in the training data, and none was selected by the model's result.
"""

import argparse
import json
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from espeak import Audio
from numpy.typing import NDArray
from synth import Clip, Plan, held_out_clip, held_out_noise
from vocabulary import SAMPLE_RATE, WORDS

_REPOSITORY = Path(__file__).resolve().parents[2]
_PHRASE = Plan(utterances=1, max_words=8, max_seconds=20.0)

Named = Iterator[tuple[str, Clip]]


def test_clips() -> Named:
    """Returns clips, half with noise; the last six English ones have voices unseen in training."""
    for i in range(56):
        yield f"en-{i:02}.flac", _phrase(70_000 + i, "en", unseen=i >= 50)
    for i in range(12):
        yield f"es-{i:02}.flac", _phrase(71_000 + i, "es")
        yield f"de-{i:02}.flac", _phrase(72_000 + i, "de")
    for kind, seed in (("silence", 73_000), ("clicks", 73_001), ("noise", 73_004)):
        yield f"{kind}.flac", Clip(held_out_noise(seed, 2.0).audio, "", [])


def demo_clips() -> Named:
    for i in range(6):
        yield f"en-{i}.wav", _phrase(80_000 + i, "en")
    for i in range(2):
        yield f"es-{i}.wav", _phrase(81_000 + i, "es")
        yield f"de-{i}.wav", _phrase(82_000 + i, "de")
    yield "en-several.wav", held_out_clip(83_000, Plan(3, 8, 14.0))
    yield "en-minute.flac", held_out_clip(83_001, Plan(25, 8, 60.0), clean=True)


def _phrase(seed: int, language: str, unseen: bool = False) -> Clip:
    return held_out_clip(seed, _PHRASE, language, clean=seed % 2 == 0, unseen=unseen)


def reference(name: str, clip: Clip) -> dict[str, object]:
    """Returns a line of references.jsonl. `language` is null and `text` empty without speech."""
    return {
        "file": name,
        "language": clip.language or None,
        "text": " ".join(clip.words),
        "seconds": round(clip.seconds, 3),
    }


def test_reference(name: str, clip: Clip) -> dict[str, object]:
    """Adds the translation of the foreign clips and the start of each word."""
    content = reference(name, clip)
    if clip.language in ("es", "de"):
        english = WORDS[clip.language]
        content["translation"] = " ".join(english[word] for word in clip.words)
    return content | {"starts": [round(start, 3) for start in clip.starts]}


def write(path: Path, audio: Audio) -> None:
    """Writes the audio at half its loudness, with the usual headroom of a recording. This saves one
    of about eight bits of each sample in FLAC."""
    samples = np.round(audio * 16384).astype(np.int16)
    if path.suffix == ".flac":
        write_flac(path, samples)
    else:
        write_wav(path, samples)


def write_wav(path: Path, samples: NDArray[np.int16]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())


def write_flac(path: Path, samples: NDArray[np.int16]) -> None:
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream(
            "flac", rate=SAMPLE_RATE, layout="mono", options={"compression_level": "12"}
        )
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, default=_REPOSITORY)
    repository = parser.parse_args().repository
    for clips, describe, directory in (
        (test_clips(), test_reference, repository / "tests" / "data" / "speech"),
        (demo_clips(), reference, repository / "asrd" / "demo" / "samples"),
    ):
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "references.jsonl").open("w", encoding="utf-8") as references:
            for name, clip in clips:
                write(directory / name, clip.audio)
                references.write(json.dumps(describe(name, clip), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
