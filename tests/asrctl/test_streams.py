"""asrctl with standard streams that are closed, full, or read by nobody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asrd.exitcodes import Exit
from tests.asrctl.test_cli import snapshot
from tests.support.fake_daemon import PATIENCE, Behaviour, FakeDaemon, answer, fail
from tests.support.paths import ROOT

CLOSED = "asrctl: standard output: it is closed\n"
FULL = "asrctl: standard output: No space left on device\n"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "asrd.sock"
    monkeypatch.setenv("ASRD_SOCKET", str(path))
    (tmp_path / "talk.wav").write_bytes(b"samples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Buffered as usual: what is left at the end is where an error is easily missed.
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    return path


def asrctl(arguments: str, redirection: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; `redirection` is the shell's."""
    script = f'exec "$0" -m asrd.asrctl.cli {arguments} {redirection}'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("state", "code"), [("ok", 0), ("degraded", 1), ("unavailable", 2), (None, 3)]
)
@pytest.mark.parametrize("redirection", [">&-", "2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_health_is_true_without_streams(
    path: Path, state: str | None, code: int, redirection: str
) -> None:
    if state is None:
        found, _, err = asrctl("health", redirection)
    else:
        with FakeDaemon(path, others=snapshot(state)):
            found, _, err = asrctl("health", redirection)
    assert (found, err) == (code, "")


@pytest.mark.parametrize("state", ["ok", "degraded", "unavailable"])
def test_health_that_cannot_be_written_is_no_health(path: Path, state: str) -> None:
    with FakeDaemon(path, others=snapshot(state)):
        assert asrctl("health", ">/dev/full") == (Exit.OUTPUT_LOST, "", FULL)


@pytest.mark.parametrize("command", ["ping", "cancel job"])
def test_an_exit_code_is_answer_enough(path: Path, command: str) -> None:
    cancelled: dict[str, Behaviour] = {
        "cancel": lambda peer, data: peer.send("cancelled", job_id="job", jobs=1)
    }
    with FakeDaemon(path, others=cancelled):
        assert asrctl(command, ">&-") == (Exit.OK, "", "")
        assert asrctl(command, ">/dev/full") == (Exit.OUTPUT_LOST, "", FULL)


@pytest.mark.parametrize(
    "command", ["status", "status --json", "metrics", "describe", "watch", "transcribe talk.wav"]
)
@pytest.mark.parametrize(("redirection", "err"), [(">&-", CLOSED), (">/dev/full", FULL)])
def test_lost_text_is_a_failure(path: Path, command: str, redirection: str, err: str) -> None:
    with FakeDaemon(path, [answer("x")]):
        assert asrctl(command, redirection) == (Exit.OUTPUT_LOST, "", err)


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "2>/dev/full", ">/dev/full", ">&- 2>&-"])
def test_the_doctor_needs_no_streams_either(path: Path, redirection: str) -> None:
    code, _, err = asrctl("doctor", redirection)
    assert code == (Exit.OUTPUT_LOST if redirection == ">/dev/full" else Exit.FAILED)
    assert err in ("", FULL)


@pytest.mark.parametrize("redirection", [">&-", "<&-", ">&- 2>&- <&-", ">/dev/full"])
def test_text_that_goes_to_a_file_needs_no_streams(path: Path, redirection: str) -> None:
    with FakeDaemon(path, [answer("x")]) as daemon:
        assert asrctl("transcribe talk.wav -o out.txt", redirection) == (Exit.OK, "", "")
        # A descriptor of the recording or the socket may not pass for a standard stream.
        assert daemon.jobs[0].audio == b"samples"
    assert Path("out.txt").read_text() == "x\n"


def test_no_job_for_a_stdout_that_is_closed(path: Path) -> None:
    with FakeDaemon(path, [answer("x")]) as daemon:
        asrctl("transcribe talk.wav", ">&-")
        assert daemon.requests == []


def test_a_closed_stdin_is_no_recording(path: Path) -> None:
    with FakeDaemon(path, [answer("x")]) as daemon:
        code, out, err = asrctl("transcribe - talk.wav", "<&-")
        assert (code, out) == (Exit.BAD_AUDIO, "x\n")
        assert err == "asrctl: -: standard input is closed\n"
        assert [job.audio for job in daemon.jobs] == [b"samples"]


@pytest.mark.parametrize("source", ["- 0>/dev/null", "/", "/proc/self/mem"])
def test_what_cannot_be_read_is_bad_audio(path: Path, source: str) -> None:
    with FakeDaemon(path, [fail("bad-audio")]):
        code, _, err = asrctl(f"transcribe {source}", "")
    assert code == Exit.BAD_AUDIO
    assert err.count("\n") == 1


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_errors_that_nobody_can_read_keep_their_code(path: Path, redirection: str) -> None:
    with FakeDaemon(path, [fail("deadline-exceeded")]):
        assert asrctl("transcribe talk.wav", redirection) == (Exit.DEADLINE, "", "")
    assert asrctl("status", redirection) == (Exit.UNREACHABLE, "", "")
    assert asrctl("transcribe", redirection) == (Exit.USAGE, "", "")


def test_a_full_disk_is_named_with_the_file_on_it(path: Path) -> None:
    with FakeDaemon(path, [answer("x")]):
        assert asrctl("transcribe talk.wav -o /dev/full", "") == (
            Exit.OUTPUT_LOST,
            "",
            "asrctl: /dev/full: No space left on device\n",
        )


@pytest.mark.parametrize("command", ["status", "health", "ping", "describe", "metrics", "watch"])
def test_a_reader_that_is_gone(path: Path, command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with FakeDaemon(path):
            done = subprocess.run(
                [sys.executable, "-m", "asrd.asrctl.cli", command],
                stdout=writer,
                stderr=subprocess.PIPE,
                timeout=PATIENCE,
                check=False,
            )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (Exit.BROKEN_PIPE, b"")
