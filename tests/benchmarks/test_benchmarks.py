"""The benchmarks start and their parts work; what they measure is no test's business."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from asrd.wire import frames
from tests.benchmarks.__main__ import NAMES
from tests.benchmarks.deathlog import DeathLog
from tests.benchmarks.floor import floor
from tests.benchmarks.loadgen import Load, protocol
from tests.benchmarks.longfiles import FORMATS, LongFiles
from tests.benchmarks.measure import (
    differences,
    interleave,
    percentile,
    speech,
)
from tests.support.fake_daemon import FakeDaemon, answer, busy, fail, hang_up, never
from tests.support.paths import ROOT


@pytest.mark.parametrize("name", NAMES)
def test_it_explains_itself(name: str) -> None:
    argv = [sys.executable, "-m", f"tests.benchmarks.{name}", "--help"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"python -m tests.benchmarks.{name}" in done.stdout
    assert "--seconds" in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_how_to_run_it(name: str) -> None:
    assert f"python -m tests.benchmarks.{name}" in (ROOT / "docs" / "performance.md").read_text()


def test_rounds_are_whole_and_begin_with_another_way_each() -> None:
    order: list[str] = []
    ways: dict[str, Callable[[], object]] = {name: partial(order.append, name) for name in "abc"}
    times = interleave(ways, seconds=0, warm=1, least=2)
    assert "".join(order) == "abc" + "abc" + "bca"
    assert {name: len(taken) for name, taken in times.items()} == {"a": 2, "b": 2, "c": 2}


def test_differences_are_within_a_round() -> None:
    assert differences([2.0, 5.0], [1.0, 3.0]) == [1000, 2000]


def test_percentiles() -> None:
    times = [float(number) for number in range(100)]
    assert [percentile(times, share) for share in (0, 0.5, 0.99, 1)] == [0, 49, 98, 99]


def test_speech_is_as_long_as_asked() -> None:
    assert len(speech(2.5)) == 40_000


def test_the_floor_answers_with_the_number_of_samples(tmp_path: Path) -> None:
    with floor(str(tmp_path)) as bare:
        assert bare.ask(bytes(2000)) == 1000


@pytest.mark.parametrize(("crowd_seconds", "refused"), [(0, (0, 1)), (60, (1, 0))])
def test_the_generator_tells_answers_from_refusals_and_losses(
    tmp_path: Path, crowd_seconds: float, refused: tuple[int, int]
) -> None:
    (tmp_path / "audio").write_bytes(bytes(3200))
    spoken = protocol("asrd", tmp_path / "audio")
    # What the fake daemon, unlike asrd, needs of a request.
    request = frames.encode("transcribe", {"job_id": "j", "stream": False}, fds=1)
    path = tmp_path / "socket"
    with FakeDaemon(path, [busy(10), hang_up, answer("yes"), fail("internal"), never]):
        load = Load(str(path), spoken._replace(request=request), 1, crowd_seconds)
        tally = load.run(0.5)
    os.close(*spoken.fds)
    assert (len(tally.done), tally.lost, tally.unconnected) == (1, 2, 0)
    assert (len(tally.crowd), len(tally.busy)) == refused


def test_the_generator_counts_connections_that_it_can_not_make(tmp_path: Path) -> None:
    audio = tmp_path / "audio.pcm"
    audio.write_bytes(b"")
    tally = Load(str(tmp_path / "nobody"), protocol("wyoming", audio), clients=2).run(0.01)
    assert tally.unconnected == 2


def test_the_parts_of_a_recovery_add_up() -> None:
    with DeathLog.open() as log:
        killed = time.monotonic()
        os.write(log.sink, b"... warning asrd-run: asr-worker@0: killed by SIGKILL\n")
        os.write(log.sink, b"... info asr-worker@0: demo loaded on cpu (int8) in 0.10 s\n")
        deadline = time.monotonic() + 10
        while not (parts := log.parts(killed, killed + 1, 0.1)):
            assert time.monotonic() < deadline
        assert sum(parts[0].values()) == pytest.approx(1)
        assert log.parts(time.monotonic(), killed + 1, 0.1) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_a_long_file_is_as_long_as_asked(tmp_path: Path, kind: str) -> None:
    path = LongFiles(tmp_path).get(kind, 1)
    if kind == "pcm":
        assert len(np.fromfile(path, "<i2")) == 60 * 16_000
        return
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    seconds = sum(frame.samples for frame in frames) / frames[0].sample_rate
    assert seconds == pytest.approx(60, abs=0.2)
