"""Reports of a dead worker: their content, and the clients that may see them."""

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asrd.asrctl import doctor
from asrd.asrctl.finding import Verdict
from asrd.asrctl.host import Host
from asrd.client.client import Client
from tests.support.daemons import Daemon, Front, alive
from tests.support.raw import Peer, memfd, wait_for
from tests.support.speech import long_recording
from tests.support.subprocesses import started

SECONDS = 240
SAMPLES = 16_000 * SECONDS
# A wide beam: a fast machine must still be in the middle of minutes of audio after a second.
CONFIG = "[front]\nqueue_max = 8\n[worker]\ncpu_threads = 1\nbeam_size = 32\n"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, config=CONFIG) as running:
        running.wait_until_ready()
        yield running


def crashes(daemon: Daemon) -> list[dict[str, Any]]:
    with Client(daemon.socket) as client:
        found: list[dict[str, Any]] = client.status(crashes=True)["crashes"]
    return found


def explained(daemon: Daemon) -> dict[str, Any]:
    """The only crash, once the next process has explained it."""

    def explained() -> dict[str, Any] | None:
        return next((crash for crash in crashes(daemon) if crash["exit"]), None)

    found: dict[str, Any] = wait_for("the explanation", explained)
    return found


def printed(daemon: Daemon, *arguments: str) -> str:
    asrctl = started("--socket", daemon.socket, *arguments)
    out, err = asrctl.communicate()
    assert (asrctl.returncode, err) == (0, b"")
    return out.decode()


def test_doctor_examines_the_model_that_asrd_run_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASRD_CONFIG", str(tmp_path / "asrd.toml"))
    # A machine with packages has units, and the doctor would examine those.
    monkeypatch.setattr("asrd.asrctl.host.Host.is_installed", lambda host: False)
    config = f"[worker]\nmodel = '{tmp_path}/none'\n"
    with Daemon(tmp_path, "--model", "demo", config=config) as running:
        running.wait_until_ready()
        findings = list(doctor.examine(Host(running.socket)))
    texts = [found.text for _, found in findings]
    assert not [found for _, found in findings if found.verdict is Verdict.WRONG]
    assert "of worker 0: demo is complete" in texts


def test_a_segfault_in_the_middle_of_a_job(daemon: Daemon) -> None:
    assert crashes(daemon) == []
    pid = daemon.pid_of()
    with daemon.connect() as client:
        ask_for_minutes(client, job_id="long", trace_id="trace-1")
        client.expect("accepted")
        wait_for("the middle of the job", lambda: job_runs(daemon))
        daemon.kill(number=signal.SIGSEGV)
        assert client.transcript("long")["attempts"] == 2
    crash = explained(daemon)
    stderr = crash.pop("stderr")
    assert stderr.startswith('Fatal Python error: Segmentation fault / File "')
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", crash.pop("time"))
    assert daemon.workers()["0"]["failures"] == {"signal": 1}
    (job,) = crash.pop("jobs")
    assert crash == {
        "worker": "0",
        "pid": pid,
        "model": "demo",
        "exit": "killed by SIGSEGV",
        "noticed": "its connection ended without notice",
        "other_jobs": 0,
    }
    assert (job["job_id"], job["trace_id"], job["attempt"]) == ("long", "trace-1", 1)
    assert job["audio_bytes"] == SAMPLES * 2
    assert job["audio_seconds"] == pytest.approx(SECONDS)
    # The whole traceback went on to where the worker's stderr goes.
    assert "(most recent call first)" in daemon.log
    lines = [line for line in daemon.log.splitlines() if " warning asrd: worker 0" in line]
    assert len(lines) == 2
    assert all("job_id=long" in line and "trace_id=trace-1" in line for line in lines)
    assert "its last output on stderr: Fatal Python error: Segmentation fault" in lines[1]
    shown = printed(daemon, "status", "--crashes").splitlines()
    assert len(shown) == 3
    assert shown[1].split()[1:] == [
        *("0", str(pid), "demo", *f"{crash['exit']}, {crash['noticed']}".split()),
        *("long", "yes", "trace-1", "1"),
        *("4", "min,", str(SAMPLES * 2), "bytes"),
    ]
    assert shown[2] == f"  {stderr}"
    assert json.loads(printed(daemon, "status", "--crashes", "--json"))["crashes"][0]["pid"] == pid
    assert "crashes" not in json.loads(printed(daemon, "status", "--json"))


def ask_for_minutes(client: Peer, **options: Any) -> None:
    """Send minutes of audio: an `alive` event in the middle reports their length."""
    audio, _ = long_recording(SECONDS, seed=1)
    pcm = (audio[:SAMPLES] * 32_767).astype("<i2").tobytes()
    with memfd(pcm) as fd:
        described = {"encoding": "pcm_s16le", "sample_rate": 16_000, "channels": 1}
        data = {"audio": described, "language": "en", **options}
        client.send("transcribe", data, fds=(fd.fileno(),))


def job_runs(daemon: Daemon) -> bool:
    worker = daemon.workers()["0"]
    assert worker["jobs_done"] == 0, "the job is over before it could be killed"
    return bool(worker["jobs"] and worker["jobs"][0]["age_ms"] >= 700)


class Hanging(Daemon):
    program = ("-m", "tests.support.changed", "tests.support.hanging")


def test_hang_is_told_to_all_and_its_place_is_named(tmp_path: Path) -> None:
    config = "[front]\nmax_attempts = 1\n[worker]\nstall_seconds = 0.2\n"
    with Hanging(tmp_path, "--watchdog", "1", config=config) as daemon, daemon.connect() as client:
        daemon.wait_until_ready()
        client.ask_file("a")
        assert "it made no progress for" in client.answer("a").data["text"]
        crash = explained(daemon)
        place = r"no progress in .*, hanging\.py:\d+ _generate, .* wait"
        assert crash["noticed"].startswith("it made no progress for")
        assert crash["exit"] == "killed by SIGABRT (watchdog)"
        assert daemon.workers()["0"]["failures"] == {"no-progress": 1}
        # The thread that the watchdog's signal hit is another one.
        assert re.match(place + " / Fatal Python error: Aborted / ", crash["stderr"])
        assert "it made no progress for" in daemon.workers()["0"]["last_death"]
        assert re.search(r"job a made no progress for .* hanging\.py:\d+ _generate", daemon.log)


def test_death_report_names_a_job_that_was_cancelled(tmp_path: Path) -> None:
    """A job that poisoned its process, or was cancelled, was answered before the process ended."""
    with Front(tmp_path, "0") as front, front.connect() as client:
        with front.ready() as worker:
            client.ask("poison")
            job = worker.start_job()
            failed = {"key": job["key"], "code": "internal", "text": "a CUDA error"}
            worker.send("failed", {**failed, "fatal": True})
        with front.ready() as worker:
            worker.start_job()
            client.send("cancel", {"job_id": "poison"})
            assert client.answer("poison").data["code"] == "cancelled"
        front.wait_for_state("starting")
        with Client(front.socket) as asking:
            found = asking.status(crashes=True)["crashes"]
        lines = [line for line in front.log.splitlines() if " lost: " in line]
    jobs = [[(job["job_id"], job["attempt"]) for job in crash["jobs"]] for crash in found]
    assert jobs == [[("poison", 1)], [("poison", 2)]]
    assert found[0]["jobs"][0]["audio_seconds"] == 1.0
    assert found[0]["noticed"] == "it ended itself: a CUDA error"
    assert found[1]["noticed"].startswith("its connection ")
    assert "job poison (attempt 2, 1.0 s, 32000 bytes)" in lines[1]


def test_death_report_leaves_out_answered_jobs(tmp_path: Path) -> None:
    with Front(tmp_path, "0") as front, front.connect() as client:
        with front.ready() as worker:
            client.ask("done")
            worker.serve_job()
            client.answer("done")
            client.ask("failed")
            key = worker.start_job()["key"]
            worker.send("failed", {"key": key, "code": "bad-audio", "text": "noise"})
            client.answer("failed")
        front.wait_for_state("starting")
        with Client(front.socket) as asking:
            (crash,) = asking.status(crashes=True)["crashes"]
    assert crash["jobs"] == []


def test_stored_stderr_goes_to_the_next_process_only(daemon: Daemon) -> None:
    """A descriptor that is not close-on-exec in the supervisor would be in every later process."""

    def kept(pid: int) -> int:
        found = 0
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            # What it closes meanwhile, a client's connection, say, is none of them.
            with contextlib.suppress(FileNotFoundError):
                found += entry.readlink().name.startswith("memfd:stderr")
        return found

    front = daemon.front_pid()
    daemon.kill(number=signal.SIGSEGV)
    crash = explained(daemon)
    os.kill(front, signal.SIGKILL)
    wait_for("the front's death", lambda: not alive(front))
    daemon.wait_until_serving()
    # The next front knows the crash, too.
    assert crashes(daemon) == [crash]
    assert (kept(daemon.front_pid()), kept(daemon.pid_of())) == (0, 1)
