"""The first commands of a newcomer, with real weights and the voice of a person."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from asrd.demo import SPEECH, SPEECH_TEXT
from tests.support.daemons import environment
from tests.support.real.speech import word_error_rate

pytestmark = pytest.mark.real

_PATIENCE = 600.0


def asrd(tmp: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs the program where it finds no settings; it must leave nothing behind."""
    done = subprocess.run(
        [sys.executable, "-m", "asrd.main", *arguments],
        env={
            **environment(tmp),
            "ASRD_WORKER_CPU_THREADS": "1",
            "ASRD_WORKER_COMPUTE_TYPE": "int8",
        },
        text=True,
        capture_output=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert not [path.name for path in tmp.iterdir() if path.name.startswith("asrd-")]
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_transcribe_hears_every_word(
    name: str, model_path: Callable[[str], Path], tmp_path: Path
) -> None:
    done = asrd(tmp_path, "transcribe", str(SPEECH), "--model", str(model_path(name)))
    assert word_error_rate([(SPEECH_TEXT, done.stdout)]) == 0
    assert done.stderr == ""


def test_demo_with_a_real_model(model_path: Callable[[str], Path], tmp_path: Path) -> None:
    done = asrd(tmp_path, "demo", "--model", str(model_path("tiny.en")))
    heard = re.search("heard:  (.*)", done.stdout)
    assert heard is not None
    assert word_error_rate([(SPEECH_TEXT, heard[1])]) == 0
    assert f"spoken: {SPEECH_TEXT}" in done.stdout
    assert "(2 attempts, the same text)" in done.stdout
    assert "killed by SIGSEGV" in done.stdout
