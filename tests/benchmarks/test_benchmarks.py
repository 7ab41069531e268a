"""Tests that the benchmarks start and that their shared parts work."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from faster_whisper import WhisperModel

from asrd.engine.model_check import check
from asrd.wire import frames
from tests.benchmarks import measure, random_model
from tests.benchmarks.__main__ import NAMES
from tests.benchmarks.floor import floor
from tests.benchmarks.loadgen import Load, protocol
from tests.support.fake_daemon import FakeDaemon, answer, busy, fail, hang_up, never
from tests.support.paths import ROOT
from tests.support.speech import long_recording

# Each benchmark's help, by one process: most of the time goes into what they import.
_HELP = """
import contextlib, runpy, sys
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    print(f"=== {name}")
    with contextlib.suppress(SystemExit):
        runpy.run_module(name, run_name="__main__", alter_sys=True)
"""


def test_benchmarks_have_help_and_a_command_in_docs() -> None:
    argv = [sys.executable, "-c", _HELP, *(f"tests.benchmarks.{name}" for name in NAMES)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    printed = (text.partition("\n") for text in done.stdout.split("=== ")[1:])
    helps = {name: text for name, _, text in printed}
    page = (ROOT / "docs" / "performance.md").read_text()
    for name in NAMES:
        command = f"python -m tests.benchmarks.{name}"
        assert command in helps[f"tests.benchmarks.{name}"]
        assert command in page


def test_interleaved_rounds_start_with_different_ways() -> None:
    order: list[str] = []
    ways: dict[str, Callable[[], object]] = {name: partial(order.append, name) for name in "abc"}
    times = measure.interleave(ways, seconds=0, warm=1, least=2)
    assert "".join(order) == "abc" + "abc" + "bca"
    assert {name: len(taken) for name, taken in times.items()} == {"a": 2, "b": 2, "c": 2}


def test_percentile_is_the_nearest_rank() -> None:
    times = [float(number) for number in range(100)]
    assert [measure.percentile(times, share) for share in (0, 0.5, 0.99, 1)] == [0, 49, 98, 99]


def test_floor_answers_with_number_of_samples(tmp_path: Path) -> None:
    with floor(str(tmp_path)) as bare:
        assert bare.ask(bytes(2000)) == 1000


@pytest.mark.parametrize(("crowd_seconds", "refused"), [(0, (0, 1)), (60, (1, 0))])
def test_load_counts_transcripts_refusals_and_losses(
    tmp_path: Path, crowd_seconds: float, refused: tuple[int, int]
) -> None:
    (tmp_path / "audio").write_bytes(bytes(3200))
    spoken = protocol("asrd", tmp_path / "audio")
    # The fake daemon needs more fields than asrd does.
    request = frames.encode("transcribe", {"job_id": "j", "stream": False}, fds=1)
    path = tmp_path / "socket"
    with FakeDaemon(path, [busy(10), hang_up, answer("yes"), fail("internal"), never]):
        load = Load(str(path), spoken._replace(request=request), crowd_seconds)
        tally = asyncio.run(load.run(1, 0.5))
    os.close(*spoken.fds)
    assert (len(tally.done), tally.lost, tally.unconnected) == (1, 2, 0)
    assert (len(tally.crowd), len(tally.busy)) == refused


def test_load_counts_failed_connections(tmp_path: Path) -> None:
    audio = tmp_path / "audio.pcm"
    audio.write_bytes(b"")
    load = Load(str(tmp_path / "nobody"), protocol("wyoming", audio))
    assert asyncio.run(load.run(2, 0.01)).unconnected == 2


@pytest.mark.parametrize("compute_type", ["int8", "float32"])
def test_random_model_says_same_words_in_every_window(tmp_path: Path, compute_type: str) -> None:
    random_model.make("tiny", tmp_path, compute_type, tokens=3)
    facts = check(tmp_path)
    assert (facts.multilingual, facts.word_timestamps) == (True, True)
    model = WhisperModel(str(tmp_path), device="cpu", cpu_threads=1)
    # Short windows, which take a sixth of the time.
    audio, _ = long_recording(6)
    segments, info = model.transcribe(
        audio, beam_size=1, temperature=0.0, condition_on_previous_text=False, chunk_length=5
    )
    assert [segment.text for segment in segments] == [" 1 2 3", " 1 2 3"]
    assert info.language == "en"
