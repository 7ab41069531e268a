"""A real worker dies under `asrd run`: what is known of it afterwards, and by whom."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asrd.client.client import Client
from tests.process.daemons import Daemon, Front
from tests.process.raw import HELLO, wait_for
from tests.process.test_run import LONG, ask, transcript
from tests.subprocesses import started

CONFIG = "[front]\nqueue_max = 8\n[worker]\ncpu_threads = 1\nbeam_size = 1\n"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, config=CONFIG) as running:
        running.wait_until_ready()
        yield running


def crashes(daemon: Daemon) -> list[dict[str, Any]]:
    with Client(daemon.socket) as client:
        told: list[dict[str, Any]] = client.status(crashes=True)["crashes"]
    return told


def explained(daemon: Daemon) -> dict[str, Any]:
    """The only crash, once the next process has told its part."""

    def told() -> dict[str, Any] | None:
        return next((crash for crash in crashes(daemon) if crash["exit"]), None)

    found: dict[str, Any] = wait_for("the next process's word", told)
    return found


def printed(daemon: Daemon, *arguments: str) -> str:
    asrctl = started("--socket", daemon.socket, *arguments)
    out, err = asrctl.communicate()
    assert (asrctl.returncode, err) == (0, b"")
    return out.decode()


def test_a_segfault_in_the_middle_of_a_job(daemon: Daemon) -> None:
    assert crashes(daemon) == []
    pid = daemon.pid_of()
    with daemon.connect() as client:
        # Slow enough for a sign of life in the middle, which tells the length of the audio.
        ask(client, "long", LONG, stream=True, trace_id="trace-1", beam_size=5)
        client.expect("accepted")
        while not any(job_runs_for(daemon, 0.7)):
            pass
        daemon.kill(number=signal.SIGSEGV)
        assert transcript(client, "long")["attempts"] == 2
    crash = explained(daemon)
    stderr = crash.pop("stderr")
    assert stderr.startswith('Fatal Python error: Segmentation fault / File "')
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", crash.pop("time"))
    (job,) = crash.pop("jobs")
    assert crash == {
        "worker": "0",
        "pid": pid,
        "model": "demo",
        "exit": "killed by SIGSEGV",
        "noticed": "it closed the connection without a word",
        "other_jobs": 0,
    }
    assert (job["job_id"], job["trace_id"], job["attempt"]) == ("long", "trace-1", 1)
    assert job["audio_bytes"] == 545_591
    assert job["audio_seconds"] == pytest.approx(59.7, abs=0.1)
    # The whole traceback went on to where the worker's stderr goes.
    assert "(most recent call first)" in daemon.log
    lines = [line for line in daemon.log.splitlines() if " warning asrd: " in line]
    assert len(lines) == 2
    assert all("job_id=long" in line and "trace_id=trace-1" in line for line in lines)
    assert "its last words: Fatal Python error: Segmentation fault" in lines[1]
    shown = printed(daemon, "status", "--crashes").splitlines()
    assert len(shown) == 3
    assert shown[1].split()[1:] == [
        *("0", str(pid), "demo", "killed", "by", "SIGSEGV", "long", "trace-1", "1"),
        *("59.7", "s,", "545591", "bytes"),
    ]
    assert shown[2] == f"  {stderr}"
    assert json.loads(printed(daemon, "status", "--crashes", "--json"))["crashes"][0]["pid"] == pid
    assert "crashes" not in json.loads(printed(daemon, "status", "--json"))


def job_runs_for(daemon: Daemon, seconds: float) -> Iterator[bool]:
    for worker in daemon.workers().values():
        assert worker["jobs_done"] == 0, "the job is over before it could be killed"
        yield worker["job_age_ms"] >= 1000 * seconds


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGKILL, None), (signal.SIGABRT, "Fatal Python error: Aborted / File ")],
)
def test_an_idle_worker_s_death(daemon: Daemon, number: signal.Signals, said: str | None) -> None:
    daemon.kill(number=number)
    crash = explained(daemon)
    assert crash["exit"] == f"killed by {number.name}"
    assert (crash["jobs"], crash["other_jobs"]) == ([], 0)
    assert crash["stderr"] is None if said is None else crash["stderr"].startswith(said)
    assert printed(daemon, "status", "--crashes").splitlines()[1].endswith("-    -      -        -")


def test_no_more_than_twenty_are_told(tmp_path: Path) -> None:
    """Deaths of a worker that the test plays: there are more of them in a second."""
    with Front(tmp_path, "0") as front:
        for pid in range(1, 24):
            with front.accept() as worker:
                worker.send("hello", {**HELLO, "pid": pid})
        front.wait_for_state("starting")
        with Client(front.socket) as client:
            told = client.status(crashes=True)["crashes"]
    assert [crash["pid"] for crash in told] == list(range(4, 24))
