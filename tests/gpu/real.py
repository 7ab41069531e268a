"""Checks with real Whisper weights and recordings of people, which the project does not carry.

ASRD_GPU_REAL=DIRECTORY     holds a model's directory for each name: `base`
ASRD_GPU_SPEECH=DIRECTORY   holds recordings, and references.jsonl with a line for each:
                            {"file": …, "language": …, "text": …}
"""

import hashlib
import json
import os
import re
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrd import Client
from tests.benchmarks.measure import RATE, interleave
from tests.gpu.checks import COLD, NotHere, Seen, Stage, expect, kill_in_a_job
from tests.support.speech import word_error_rate

# Of the words, how many more may be wrong on the card than on the CPU.
_MORE_ERRORS = 0.05
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {str(number) for number in range(len(_DIGITS))}


@dataclass(frozen=True)
class Clip:
    """One recording and the words in it."""

    path: Path
    language: str
    text: str

    @property
    def audio(self) -> NDArray[np.float32]:
        from faster_whisper import decode_audio

        samples: NDArray[np.float32] = decode_audio(str(self.path))
        return samples


def weights(name: str) -> Path:
    """The model's directory. Raises NotHere."""
    found = _directory("ASRD_GPU_REAL") / name
    if not (found / "model.bin").exists():
        raise NotHere(f"ASRD_GPU_REAL has no {name}/model.bin")
    return found


def clips() -> list[Clip]:
    """The recordings whose words are known. Raises NotHere."""
    directory = _directory("ASRD_GPU_SPEECH")
    lines = (directory / "references.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        Clip(directory / each["file"], each["language"], each["text"])
        for each in map(json.loads, lines)
        if each["text"]
    ]


def _directory(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        raise NotHere(f"{variable} is not set")
    return Path(value)


def normal(text: str) -> str:
    """Lower case, without punctuation, numbers up to ten in words: less than the normaliser that
    the field uses does, so the rates are higher than those published."""
    words = re.sub(r"[^\w\s']", " ", text.lower().replace("mr.", "mister")).split()
    return " ".join(_DIGITS[int(word)] if word in _NUMBERS else word for word in words)


def errors(heard: list[str], spoken: list[Clip]) -> tuple[int, int]:
    """Wrong words, and words."""
    pairs = zip(spoken, heard, strict=True)
    found = [word_error_rate(normal(clip.text), normal(text)) for clip, text in pairs]
    return sum(wrong for wrong, _ in found), sum(words for _, words in found)


def words(stage: Stage, name: str) -> Seen:
    """The errors over the recordings, on the CPU and in each compute type of the card."""
    model, spoken = weights(name), clips()
    with open(model / "model.bin", "rb") as file:
        seen: Seen = {"model.bin": f"SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()}"}
    card = stage.device == "cuda"
    ways = [("cpu", "float32")]
    ways += [("cuda", kind) for kind in ("float16", "int8_float16", "float32")] if card else []
    allowed = float("inf")
    for device, kind in ways:
        heard = _heard(stage, model, device, kind, spoken)
        wrong, of = errors(heard, spoken)
        sentences = [
            pair for pair in zip(heard, spoken, strict=True) if len(pair[1].text.split()) > 1
        ]
        some, some_of = errors([text for text, _ in sentences], [clip for _, clip in sentences])
        seen[f"{device}, {kind}"] = (
            f"{wrong} of {of} words wrong; in the {len(sentences)} sentences {some} of {some_of}"
        )
        if device == "cpu":
            allowed = wrong + _MORE_ERRORS * of
        expect(wrong <= allowed, f"{seen}")
    return seen


def _heard(stage: Stage, model: Path, device: str, kind: str, spoken: list[Clip]) -> list[str]:
    workers = 1 if device == "cuda" else min(4, os.cpu_count() or 1)
    threads = max(1, (os.cpu_count() or 1) // workers)
    arguments = ("--model", str(model), "--compute-type", kind, "--workers", str(workers))
    with stage.service(
        f"{device}-{kind}", *arguments, device=device, cpu_threads=threads
    ) as running:
        running.ready(COLD)
        with running.client() as client, ThreadPoolExecutor(workers) as pool:
            return list(pool.map(lambda clip: _text(client, clip), spoken))


def _text(client: Client, clip: Clip) -> str:
    return client.transcribe(clip.path, language=clip.language, timeout=COLD).text


def speed(stage: Stage, name: str) -> Seen:
    """asrd through its socket beside faster-whisper in this process; load, memory, a crash."""
    model, spoken, card = weights(name), clips(), stage.maybe_card()
    kind, length = ("float16", 300.0) if card else ("int8", 45.0)
    command, joined = _command(spoken), _joined(spoken, length)
    before = card.memory().used if card else 0

    def taken() -> str:
        return f"{card.memory().used - before} MiB" if card else "no card"

    arguments = ("--model", str(model), "--compute-type", kind)
    with stage.service("speed", *arguments) as running, running.client() as client:
        ready = running.ready(COLD)
        seen: Seen = {
            "load": f"{running.worker()['load_seconds']:.2f} s, {ready:.2f} s until ready",
            "card, one worker ready": taken(),
        }
        client.transcribe(joined, language="en", timeout=COLD)
        seen[f"card, after {length:g} s of speech"] = taken()
        minute = joined[: 60 * RATE]
        to_answer, to_ready = kill_in_a_job(running, client, minute)
        seen["SIGSEGV in a job of a minute"] = (
            f"its transcript after {to_answer:.2f} s, ready after {to_ready:.2f} s, of which "
            f"{running.worker()['load_seconds']:.2f} s loading"
        )
        seen |= _beside_the_library(stage.device, model, kind, client, command, joined)
    return seen


def _beside_the_library(
    device: str,
    model: Path,
    kind: str,
    client: Client,
    command: NDArray[np.float32],
    joined: NDArray[np.float32],
) -> Seen:
    from faster_whisper import WhisperModel

    library = WhisperModel(str(model), device=device, compute_type=kind, cpu_threads=1)
    texts: dict[str, str] = {}

    def in_process(audio: Any) -> None:
        found, _ = library.transcribe(audio, language="en")
        texts["library"] = " ".join(segment.text.strip() for segment in found)

    def through_asrd(audio: Any) -> None:
        texts["asrd"] = client.transcribe(audio, language="en", timeout=COLD).text

    def both(audio: Any) -> dict[str, Any]:
        return {
            "asrd": lambda: through_asrd(audio),
            "faster-whisper in process": lambda: in_process(audio),
        }

    quick = device == "cpu"
    short = interleave(both(command), 0 if quick else 8)
    long = interleave(both(joined), 0, warm=0, least=1 if quick else 3)
    differ, of = word_error_rate(normal(texts["library"]), normal(texts["asrd"]))
    seconds, commands = len(joined) / RATE, len(short["asrd"])
    return {
        f"a command of {len(command) / RATE:.1f} s, median of {commands}": "; ".join(
            f"{way} {1000 * statistics.median(times):.0f} ms" for way, times in short.items()
        ),
        f"seconds of audio per second, a recording of {seconds:g} s, median of "
        f"{len(long['asrd'])}": "; ".join(
            f"{way} {seconds / statistics.median(times):.0f}" for way, times in long.items()
        ),
        "texts of that recording": f"{differ} of {of} words differ",
    }


def _command(spoken: list[Clip]) -> NDArray[np.float32]:
    """The first recording that is about as long as a command to a voice assistant."""
    for clip in spoken:
        if clip.language == "en" and 2.5 <= len(audio := clip.audio) / RATE <= 3.5:
            return audio
    raise NotHere("no English recording is about 3 s long")


def _joined(spoken: list[Clip], seconds: float) -> NDArray[np.float32]:
    """English sentences again and again with half a second between them, exactly so long."""
    sentences = [c.audio for c in spoken if c.language == "en" and len(c.text.split()) > 3]
    if not sentences:
        raise NotHere("no English sentence is among the recordings")
    pause = np.zeros(RATE // 2, np.float32)
    once = np.concatenate([part for audio in sentences for part in (audio, pause)])
    wanted = int(seconds * RATE)
    return np.tile(once, wanted // len(once) + 1)[:wanted]
