"""What was seen, for a person (Markdown) and for a program (JSON)."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.gpu.card import Card

_PACKAGES = ("ctranslate2", "faster-whisper", "av", "onnxruntime", "numpy", "tokenizers")


@dataclass(frozen=True)
class Result:
    """`verdict`: passed, failed or not run; `seen` says what was seen, or the reason; `logs` are
    the daemons', if it failed."""

    check: str
    verdict: str
    seconds: float
    seen: dict[str, Any]
    logs: str = ""


def machine(device: str, cublas: str) -> dict[str, str]:
    try:
        card = Card().describe() if device == "cuda" else "not asked for"
    except Exception as error:
        card = f"can't be asked: {error}"
    return {
        "device": device,
        "card, driver, MiB, compute capability": card,
        "cuBLAS": cublas,
        "cores": str(os.cpu_count()),
        "Python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not there"


def write(about: dict[str, str], results: list[Result], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "gpu.md").write_text(markdown(about, results))
    data = {"machine": about, "results": [asdict(result) for result in results]}
    (directory / "gpu.json").write_text(json.dumps(data, indent=2))


def markdown(about: dict[str, str], results: list[Result]) -> str:
    lines = [
        "# asrd on a GPU" if about["device"] == "cuda" else "# No GPU: the checks on a CPU",
        "",
    ]
    lines += [f"- {key}: {value}" for key, value in about.items()]
    lines += ["", "| check | | s | what was seen |", "|---|---|---|---|"]
    for result in results:
        seen = "; ".join(
            f"{key}: {_cell(value)}"
            for key, value in result.seen.items()
            if not isinstance(value, dict)
        )
        lines.append(f"| {result.check} | {result.verdict} | {result.seconds:.0f} | {seen} |")
    for result in results:
        if "rates" in result.seen:
            lines += ["", *_rates(result)]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _rates(result: Result) -> list[str]:
    rates = result.seen["rates"]
    lengths = list(rates)
    lines = [f"## {result.check}: seconds of audio per second", ""]
    lines.append("| | " + " | ".join(f"jobs of {length}" for length in lengths) + " |")
    lines.append("|---" * (len(lengths) + 1) + "|")
    for way in rates[lengths[0]]:
        cells = [f"{rates[length][way]:.1f}" for length in lengths]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    decisions = result.seen["decision"].items()
    return [*lines, "", *(f"- {length}: {decision}" for length, decision in decisions)]
