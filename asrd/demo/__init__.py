"""The bundled model and recordings: real speech-to-text without a download. README.md in this
folder describes the model's limits."""

import json
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).parent / "model"
SAMPLES = Path(__file__).parent / "samples"
# A person: 11 s of John F. Kennedy, 20 January 1961 (public domain), as in the tests of
# openai/whisper (tests/jfk.flac), converted to 16 kHz mono.
SPEECH = Path(__file__).parent / "speech" / "jfk.flac"
SPEECH_TEXT = (
    "And so, my fellow Americans, ask not what your country can do for you, ask what you can do "
    "for your country."
)


@dataclass(frozen=True, slots=True)
class Sample:
    """A recording: the file `name` in SAMPLES, and the `text` that was spoken."""

    name: str
    language: str
    text: str
    seconds: float

    @property
    def path(self) -> Path:
        return SAMPLES / self.name


def samples() -> list[Sample]:
    lines = (SAMPLES / "references.jsonl").read_text(encoding="utf-8").splitlines()
    references = map(json.loads, lines)
    return [Sample(r["file"], r["language"], r["text"], r["seconds"]) for r in references]
