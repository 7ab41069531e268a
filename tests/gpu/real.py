"""Checks with real Whisper weights and recordings of people, which the project does not contain.

ASRD_GPU_REAL=DIRECTORY     contains the model's directory `base`
ASRD_GPU_SPEECH=DIRECTORY   contains recordings, and references.jsonl with a line for each:
                            {"file": …, "language": …, "text": …}
"""

import hashlib
import json
import os
import re
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrd import Client
from tests.benchmarks.measure import RATE, interleave
from tests.gpu.checks import NotHere, Seen, Stage, expect, kill_in_a_job
from tests.gpu.service import COLD
from tests.support.speech import word_error_rate

# The share of the words that may be wrong on the card in addition to those on the CPU.
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
    """Returns the model's directory. Raises NotHere."""
    found = _directory("ASRD_GPU_REAL") / name
    if not (found / "model.bin").exists():
        raise NotHere(f"ASRD_GPU_REAL has no {name}/model.bin")
    return found


def clips() -> list[Clip]:
    """Returns the recordings that have a reference. Raises NotHere."""
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
    """Returns lower case without punctuation, and numbers up to ten as words. Whisper's own
    normaliser does more, so these error rates are higher than published ones."""
    words = re.sub(r"[^\w\s']", " ", text.lower().replace("mr.", "mister")).split()
    return " ".join(_DIGITS[int(word)] if word in _NUMBERS else word for word in words)


def errors(heard: list[str], spoken: list[Clip]) -> tuple[int, int]:
    """Returns the number of wrong words and the number of words."""
    pairs = zip(spoken, heard, strict=True)
    found = [word_error_rate(normal(clip.text), normal(text)) for clip, text in pairs]
    return sum(wrong for wrong, _ in found), sum(words for _, words in found)


def words(stage: Stage, name: str) -> Seen:
    """Counts the errors over the recordings on the CPU and in each compute type of the card."""
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
        running.ready()
        with running.client() as client, ThreadPoolExecutor(workers) as pool:
            return list(pool.map(lambda clip: _text(client, clip), spoken))


def _text(client: Client, clip: Clip) -> str:
    return client.transcribe(clip.path, language=clip.language, timeout=COLD).text


def speed(stage: Stage, name: str) -> Seen:
    """Compares asrd with faster-whisper in this process; measures load, memory and a crash."""
    model, spoken, card = weights(name), clips(), stage.card()
    kind, length = ("float16", 300.0) if card.real else ("int8", 45.0)
    command, joined = _command(spoken), _joined(spoken, length)
    before = card.used_mib()

    def taken() -> str:
        return f"{card.used_mib() - before} MiB"

    arguments = ("--model", str(model), "--compute-type", kind)
    with stage.service("speed", *arguments) as running, running.client() as client:
        ready = running.ready()
        seen: Seen = {
            "load": f"{running.worker()['load_seconds']:.2f} s, {ready:.2f} s until ready",
            "card, one worker ready": taken(),
        }
        client.transcribe(joined, language="en", timeout=COLD)
        seen[f"card, after {length:g} s of speech"] = taken()
        minute = joined[: 60 * RATE]
        to_answer, to_ready = kill_in_a_job(running, client, minute)
        seen["SIGSEGV in a job of a minute"] = f"its transcript after {to_answer}, ready {to_ready}"
        seen |= _compare(stage.device, model, kind, client, command, joined)
    return seen


def _compare(
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

    def interleaved(audio: Any, seconds: float, warm: int, least: int) -> dict[str, list[float]]:
        ways = {"asrd": through_asrd, "faster-whisper in process": in_process}
        return interleave({n: partial(w, audio) for n, w in ways.items()}, seconds, warm, least)

    quick = device == "cpu"
    short = interleaved(command, 0 if quick else 8, 1, 3)
    long = interleaved(joined, 0, 0, 1 if quick else 3)
    differ, of = word_error_rate(normal(texts["library"]), normal(texts["asrd"]))
    seconds = len(joined) / RATE
    median_ms = {way: 1000 * statistics.median(times) for way, times in short.items()}
    rates = {way: seconds / statistics.median(times) for way, times in long.items()}
    title = f"seconds of audio per second, a recording of {seconds:g} s, median of"
    return {
        f"a command of {len(command) / RATE:.1f} s, median of {len(short['asrd'])}": "; ".join(
            f"{way} {ms:.0f} ms" for way, ms in median_ms.items()
        ),
        f"{title} {len(long['asrd'])}": "; ".join(f"{w} {rate:.0f}" for w, rate in rates.items()),
        "texts of that recording": f"{differ} of {of} words differ",
    }


def _command(spoken: list[Clip]) -> NDArray[np.float32]:
    """Returns the first recording that is about as long as a command to a voice assistant."""
    for clip in spoken:
        if clip.language == "en" and 2.5 <= len(audio := clip.audio) / RATE <= 3.5:
            return audio
    raise NotHere("no English recording is about 3 s long")


def _joined(spoken: list[Clip], seconds: float) -> NDArray[np.float32]:
    """Repeats the English sentences, with half a second between them, for exactly `seconds`."""
    sentences = [c.audio for c in spoken if c.language == "en" and len(c.text.split()) > 3]
    if not sentences:
        raise NotHere("no English sentence is among the recordings")
    pause = np.zeros(RATE // 2, np.float32)
    once = np.concatenate([part for audio in sentences for part in (audio, pause)])
    wanted = int(seconds * RATE)
    return np.tile(once, wanted // len(once) + 1)[:wanted]
