"""The bundled model and recordings: real speech-to-text without a download. README.md in this
folder describes the model's limits."""

import json
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).parent / "model"
SAMPLES = Path(__file__).parent / "samples"


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
