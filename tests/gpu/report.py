"""The report of a run: Markdown for people, JSON for programs."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import markdown_table, version
from tests.gpu.card import Card

_PACKAGES = ("ctranslate2", "faster-whisper", "av", "onnxruntime", "numpy", "tokenizers")


@dataclass(frozen=True)
class Result:
    """`verdict` is passed, failed or not run. `seen` has the findings or the reason; `logs` are the
    daemons' logs of a failed check."""

    check: str
    verdict: str
    seconds: float
    seen: dict[str, Any]
    logs: str = ""


def machine(device: str, cublas: str) -> dict[str, str]:
    try:
        card = Card(device).describe()
    except Exception as error:
        card = f"nvidia-smi failed: {error}"
    return {
        "device": device,
        "card, driver, MiB, compute capability": card,
        "cuBLAS": cublas,
        "cores": str(os.cpu_count()),
        "Python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def write(about: dict[str, str], results: list[Result], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "gpu.md").write_text(markdown(about, results))
    data = {"machine": about, "results": [asdict(result) for result in results]}
    (directory / "gpu.json").write_text(json.dumps(data, indent=2))


def markdown(about: dict[str, str], results: list[Result]) -> str:
    title = "# asrd on a GPU" if about["device"] == "cuda" else "# No GPU: the checks on a CPU"
    lines = [title, "", *(f"- {key}: {value}" for key, value in about.items()), ""]
    rows = [
        [each.check, each.verdict, f"{each.seconds:.0f}", _findings(each.seen)] for each in results
    ]
    lines.append(markdown_table(["check", "", "s", "findings"], rows))
    for result in results:
        if "table" in result.seen:
            lines += ["", f"## {result.check}: seconds of audio per second", ""]
            lines += [result.seen["table"], ""]
            lines += [f"- {key}: {value}" for key, value in result.seen["decision"].items()]
    return "\n".join(lines) + "\n"


def _findings(seen: dict[str, Any]) -> str:
    texts = {key: value for key, value in seen.items() if key not in ("table", "decision", "rates")}
    findings = "; ".join(f"{key}: {value}" for key, value in texts.items())
    return " ".join(findings.replace("|", "\\|").split())
