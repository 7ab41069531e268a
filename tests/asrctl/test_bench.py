"""`asrctl bench`, beside a daemon with the demo model and beside one that fails."""

import sys
from functools import partial
from pathlib import Path

import anyio
import pytest

from asrd.asrctl import bench, cli
from asrd.asrctl.measuring import measure, recording
from asrd.demo import SAMPLES, SPEECH
from asrd.errors import AsrdError, BadAudio
from asrd.exitcodes import Exit
from asrd.snapshot import read_snapshot
from tests.support.daemons import Daemon
from tests.support.fake_daemon import FakeDaemon, fail, never
from tests.support.status import SNAPSHOT


def test_one_client_and_several_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each client once, however slow this machine is."""
    monkeypatch.setattr(bench, "_SECONDS", 0.0)
    monkeypatch.setattr(bench, "_LIMIT_SECONDS", 600.0)
    with Daemon(tmp_path, config="[worker]\ncpu_threads = 1\n") as daemon:
        daemon.wait_until_ready()
        assert cli.main(["--socket", daemon.socket, "bench", "--clients", "3"]) == Exit.OK
        assert daemon.status()["jobs"]["done"] == 4
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "worker 0: demo on cpu (int8_float32, threads: 1)"
    assert "a recording of 10.4 s, again and again:" in lines
    one, three = lines[-2:]
    assert (one.split()[0], three.split()[0]) == ("1", "3")
    for row in (one, three):
        _, seconds, unit, per_minute = row.split()
        assert unit == "s"
        assert float(seconds) > 0
        assert float(per_minute) > 0


def test_time_limit_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "_LIMIT_SECONDS", 0.0)
    with FakeDaemon(tmp_path / "s", [never]) as daemon:
        assert cli.main(["--socket", daemon.path, "bench"]) == Exit.DEADLINE
    assert "not everything was measured within 0 s" in capsys.readouterr().err


def test_failure_of_one_of_several_clients_is_the_daemons_own(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path / "s", [never, fail("bad-audio")]) as daemon:
        with pytest.raises(BadAudio):
            anyio.run(partial(measure, daemon.path, SPEECH, 2, 0.0))


def test_daemon_with_other_work_is_described_as_busy() -> None:
    assert bench._described(read_snapshot(SNAPSHOT)) == [
        "worker 0: demo on cpu (int8, threads: 2)",
        "worker 1: failed",
        "the daemon has other work now, which makes this slower",
    ]


def test_no_daemon_is_unreachable(tmp_path: Path) -> None:
    assert cli.main(["--socket", str(tmp_path / "none"), "bench"]) == Exit.UNREACHABLE


@pytest.mark.parametrize("count", ["0", "65", "-1", "many"])
def test_number_of_clients_is_checked(count: str) -> None:
    with pytest.raises(SystemExit):
        cli.main(["bench", "--clients", count])


def test_recording_is_one_that_the_model_understands() -> None:
    assert recording("demo").parent == SAMPLES
    assert recording("base") == recording(None) == SPEECH
    assert recording("demo").exists()


def test_recording_is_in_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asrd.demo", None)
    with pytest.raises(AsrdError, match="comes with the package asrd"):
        recording("base")
