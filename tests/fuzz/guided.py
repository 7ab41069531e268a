"""Runs guided by coverage. Each is a process of its own (tests.fuzz.instrumented), which ends at
the first bug."""

import dataclasses
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from asrd import settings
from tests.fuzz.targets import RECORDS, TABLES

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FINDINGS = HERE / "findings"
# The longest input in bytes: a few events, or a header and some frames of audio.
_LONGEST = {"codec": 512, "events": 256, "json": 128, "settings": 512, "recordings": 8192}
# The bounds of one execution, far above its needs.
_SECONDS_MAX = 20
_MEMORY_MIB_MAX = 2048


@dataclasses.dataclass(frozen=True)
class Run:
    """The result of a run; `edges` are those of asrd's Python code alone."""

    target: str
    executions: int
    seconds: float
    edges: int
    inputs: int
    finding: str | None

    def __str__(self) -> str:
        counts = f"{self.executions} executions in {self.seconds:.0f} s, {self.edges} edges covered"
        return f"{self.target}: {counts} by {self.inputs} inputs, " + (
            f"a bug: {self.finding}" if self.finding else "nothing found"
        )


def fuzz(
    target: str, seconds: float, executions: int, seed: int, corpus: Path, keep: bool = False
) -> Run:
    """Runs for at most `seconds` and `executions` (0: no limit). With `keep`, inputs that reach
    new code are added to the corpus, which is minimised."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as tmp:
        finds, words = Path(tmp, "finds"), Path(tmp, "words")
        finds.mkdir()
        corpus.mkdir(parents=True, exist_ok=True)
        words.write_text("".join(f'"{word}"\n' for word in sorted(_vocabulary())))
        limits = [f"-max_total_time={seconds:.0f}", f"-runs={executions or -1}", f"-seed={seed}"]
        run = _run(target, [*limits, f"-dict={words}", str(finds), str(corpus)])
        if keep and run.finding is None:
            _merge(target, corpus, finds, Path(tmp, "small"))
    return run


def _vocabulary() -> set[str]:
    """Words that a fuzzer would not guess soon."""
    names = {spec.name for cls in RECORDS for spec in dataclasses.fields(cls)}
    return names | {kind for table in TABLES for kind in table} | _HEADER | {*settings.TABLES}


_HEADER = {"type", "data", "data_length", "payload_length", "fds", "null", "true", "false"}


def _run(target: str, arguments: list[str]) -> Run:
    FINDINGS.mkdir(exist_ok=True)
    bounds = [
        f"-max_len={_LONGEST[target]}",
        f"-timeout={_SECONDS_MAX}",
        f"-rss_limit_mb={_MEMORY_MIB_MAX}",
        f"-artifact_prefix={FINDINGS}/{target}-",
    ]
    started = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.instrumented", target, *bounds, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    counts, finding = (0, 0, 0), None
    with child:
        for line in child.stderr or ():
            if found := _PROGRESS.match(line):
                counts = tuple(map(int, found.groups()))  # type: ignore[assignment]
            if not found or "pulse" in line:
                sys.stderr.write(line)
            if found := _ARTIFACT.search(line):
                finding = found[1]
    if child.returncode and finding is None:
        finding = f"the process ended with {child.returncode}"
    return Run(target, counts[0], time.monotonic() - started, counts[1], counts[2], finding)


_PROGRESS = re.compile(r"#(\d+)\s.*\bcov: (\d+) .*corp: (\d+)/")
_ARTIFACT = re.compile(r"Test unit written to (\S+)")


def _merge(target: str, corpus: Path, finds: Path, small: Path) -> None:
    small.mkdir()
    _run(target, ["-merge=1", str(small), str(corpus), str(finds)])
    kept = list(small.iterdir())
    if not kept:
        raise RuntimeError(f"{target}: the corpus could not be merged")
    for old in corpus.iterdir():
        old.unlink()
    for new in kept:
        shutil.move(new, corpus / new.name)
