"""`asrd bench`: the order of its measurements, its choice, and one run with the demo model."""

import os
import subprocess
import tomllib
from functools import partial
from pathlib import Path

import anyio
import pytest

from asrd import cores, main
from asrd.asrctl.measuring import Speed
from asrd.errors import AsrdError
from asrd.standalone import bench
from asrd.standalone.bench import Result, Way, fastest, report, ways


def result(kind: str, threads: int, per_minute: float | None) -> Result:
    speed = None if per_minute is None else Speed(1, per_minute / 5, per_minute, 12.0)
    return Result(Way(kind, threads), speed, 300, "it is not supported" * (speed is None))


def test_all_threads_of_int8_come_first() -> None:
    assert [way.threads for way in ways(6)] == [6, 4, 2, 1] * 2
    assert [way.compute_type for way in ways(1)] == ["int8", "float32"]
    assert [way.threads for way in ways(8)][:4] == [8, 4, 2, 1]


@pytest.mark.parametrize(
    ("results", "best"),
    [
        ([("int8", 2, 1.6), ("int8", 1, 2.6), ("float32", 2, 3.1)], Way("int8", 2)),
        ([("int8", 2, 3.0), ("float32", 2, 2.0)], Way("float32", 2)),
        ([("int8", 4, 1.0), ("int8", 2, 1.02), ("int8", 1, 1.9)], Way("int8", 2)),
        ([("float32", 2, 1.0), ("int8", 2, 1.01)], Way("int8", 2)),
        ([("int8", 2, None), ("float32", 2, 3.1)], Way("float32", 2)),
        ([("int8", 2, None)], None),
        ([], None),
    ],
)
def test_fastest_with_the_fewest_threads_among_equals(
    results: list[tuple[str, int, float | None]], best: Way | None
) -> None:
    assert fastest([result(*each) for each in results]) == best


def test_report_ends_with_settings_that_the_file_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "share", lambda workers: 2)
    results = [result("int8", 2, 1.6), result("float32", 2, None)]
    text = "\n".join(report(results))
    assert "int8          2        0.32 s               1.60" in text
    assert "float32       2        it is not supported" in text
    assert "and the default:" in text
    settings = text.partition(":\n\n")[2].partition("\n\n")[0]
    assert tomllib.loads(settings) == {"worker": {"compute_type": "int8", "cpu_threads": 2}}
    assert "default" not in "\n".join(report([result("float32", 2, 1.0)]))


def test_each_way_is_measured_with_the_demo_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One request each, however slow this machine is."""
    monkeypatch.setattr(bench, "_SECONDS_EACH", 0.0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("ASRD_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setattr(cores, "usable", lambda: 2)
    assert main.main(["bench", "--seconds", "600"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith(("int8", "float32"))]
    expected = [["int8", "2"], ["int8", "1"], ["float32", "2"], ["float32", "1"]]
    assert [row[:2] for row in rows] == expected
    assert all(float(row[2]) > 0 and int(row[5]) > 30 for row in rows)
    assert list(tmp_path.iterdir()) == []


def test_way_that_the_engine_refuses_has_its_reason() -> None:
    found = anyio.run(bench._measure, "demo", Way("int9", 1), 0.0)
    assert found.speed is None
    assert "int9 is not supported" in found.reason


def test_memory_of_a_worker_that_has_died() -> None:
    """First as a process that nobody has waited for, then without a trace."""
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    for pid in (process.pid, process.pid, None):
        with pytest.raises(AsrdError, match="the worker died after its measurement"):
            bench._peak_mib(pid)
        process.wait()


def test_worker_that_dies_after_its_measurement_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    of_a_dead_one = partial(bench._peak_mib, None)
    monkeypatch.setattr(bench, "_peak_mib", lambda pid: of_a_dead_one())
    found = anyio.run(bench._measure, "demo", Way("int8", 1), 0.0)
    assert (found.speed, found.reason) == (None, "the worker died after its measurement")


def test_no_time_at_all_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASRD_CONFIG", str(tmp_path / "none.toml"))
    results = anyio.run(bench._measure_all, "demo", 0.0)
    assert {each.reason for each in results} == {"the time was over"}
    monkeypatch.setattr(anyio, "run", lambda *_: results)
    assert main.main(["bench", "--seconds", "1"]) == 1
    assert "--seconds N allows more" in capsys.readouterr().err
