"""docs/tutorial.md, word for word: its commands in one shell, on a copy of the sources."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.daemons import environment
from tests.support.paths import ROOT
from tests.support.real.speech import joined, sentences, word_error_rate
from tests.support.sounds import encoded

pytestmark = pytest.mark.real

PAGE = ROOT / "docs" / "tutorial.md"
SOURCES = ["LICENSE", "README.md", "asrd", "pyproject.toml"]
# So long that it still runs when its worker is killed.
SECONDS = 100
# The reader waits for the line that the daemon is listening, and looks up the PID.
READY = "until asrctl health; do sleep 0.2; done"
PID = "$(asrctl status | awk '$1 == 0 && $2 ~ /ready|busy/ {print $3}')"


def script() -> str:
    """The commands of the page, each after a line with its number."""
    commands = re.findall(r"^    \$ (.+)$", PAGE.read_text(), re.MULTILINE)
    lines = ["set -e", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for number, command in enumerate(commands):
        lines += [f"echo '== {number}'", command.replace("kill -SEGV 4712", f"kill -SEGV {PID}")]
        if command.startswith("asrd run"):
            lines.append(READY)
    return "\n".join(lines)


def test_tutorial_word_for_word(tmp_path: Path) -> None:
    clone = tmp_path / "asrd"
    clone.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, clone / name)
    audio, text = joined(sentences(), SECONDS)
    (clone / "talk.mp3").write_bytes(encoded(audio, "mp3"))
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    done = subprocess.run(
        ["bash", "-c", script()],
        cwd=clone,
        env={
            **environment(tmp_path),
            "XDG_RUNTIME_DIR": str(runtime),
            "HF_HOME": str(tmp_path / "models"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.split(r"^== \d+\n", done.stdout, flags=re.MULTILINE)
    (plain, *_) = (each for each in said if len(each) > 500)
    assert word_error_rate([(text, plain)]) < 0.1
    assert "\nthe same\n" in done.stdout
    assert "killed by SIGSEGV" in done.stdout
    subtitles = (clone / "talk.srt").read_text()
    for name in ("monday", "tuesday"):
        assert (clone / "texts" / f"{name}.srt").read_text() == subtitles
    assert "\nasrd: finishing accepted jobs" in done.stderr
