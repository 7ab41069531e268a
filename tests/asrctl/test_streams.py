"""asrctl with standard streams that are closed, full, or read by nobody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asrd.exitcodes import Exit
from asrd.wire.fds import OwnedFd
from tests.support.fake_daemon import PATIENCE, Behaviour, FakeDaemon, answer, fail
from tests.support.paths import ROOT
from tests.support.status import in_state

CLOSED = "asrctl: standard output: it is closed\n"
FULL = "asrctl: standard output: No space left on device\n"


@pytest.fixture(autouse=True)
def _in_directory(path: Path, recording: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Buffered as usual: an error of the last flush is easily missed.
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


def asrctl(arguments: str, redirection: str, stdout: int = subprocess.PIPE) -> tuple[int, str, str]:
    """Returns exit code, stdout and stderr; `redirection` is the shell's."""
    script = f'exec "$0" -m asrd.asrctl.cli {arguments} {redirection}'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout or "", done.stderr


@pytest.mark.parametrize(
    ("state", "code", "redirection"),
    [("ok", 0, ">&-"), ("degraded", 1, "2>&-"), ("unavailable", 2, "<&- >&- 2>&-")],
)
def test_health_needs_no_streams(path: Path, state: str, code: int, redirection: str) -> None:
    with FakeDaemon(path, others=in_state(state)):
        found, _, err = asrctl("health", redirection)
    assert (found, err) == (code, "")


@pytest.mark.parametrize("command", ["health", "ping", "cancel job", "doctor"])
def test_exit_code_is_the_answer_unless_stdout_is_full(path: Path, command: str) -> None:
    cancelled: dict[str, Behaviour] = {
        "cancel": lambda peer, data: peer.send("cancelled", job_id="job", jobs=1)
    }
    with FakeDaemon(path, others=cancelled | in_state("ok")):
        code = Exit.FAILED if command == "doctor" else Exit.OK
        assert asrctl(command, ">&-") == (code, "", "")
        assert asrctl(command, ">/dev/full") == (Exit.OUTPUT_LOST, "", FULL)


@pytest.mark.parametrize(
    ("command", "redirection", "err"),
    [
        ("status", ">&-", CLOSED),
        ("metrics", ">/dev/full", FULL),
        ("watch", ">&-", CLOSED),
        ("watch", ">/dev/full", FULL),
        ("transcribe talk.wav", ">/dev/full", FULL),
    ],
)
def test_lost_text_is_a_failure(path: Path, command: str, redirection: str, err: str) -> None:
    with FakeDaemon(path, [answer("x")]):
        assert asrctl(command, redirection) == (Exit.OUTPUT_LOST, "", err)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_stdout_without_text_is_no_failure(
    path: Path, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with FakeDaemon(path, [answer("x")]):
        assert asrctl("transcribe talk.wav -o text", ">/dev/full") == (Exit.OK, "", "")


def test_closed_stdout_starts_no_job(path: Path) -> None:
    with FakeDaemon(path, [answer("x")]) as daemon:
        assert asrctl("transcribe talk.wav", ">&-") == (Exit.OUTPUT_LOST, "", CLOSED)
        assert daemon.requests == []


@pytest.mark.parametrize("redirection", [">&- 2>&- <&-", ">/dev/full"])
def test_text_for_a_file_needs_no_streams(path: Path, redirection: str) -> None:
    with FakeDaemon(path, [answer("x")]) as daemon:
        assert asrctl("transcribe talk.wav -o out.txt", redirection) == (Exit.OK, "", "")
        # Neither the recording nor the socket got the number of a standard stream.
        assert daemon.jobs[0].audio == b"talk.wav"
    assert Path("out.txt").read_text() == "x\n"


def test_closed_stdin_is_no_recording(path: Path) -> None:
    with FakeDaemon(path, [answer("x")]) as daemon:
        code, out, err = asrctl("transcribe - talk.wav", "<&-")
        assert (code, out) == (Exit.BAD_AUDIO, "x\n")
        assert err == "asrctl: -: standard input is closed\n"
        assert [job.audio for job in daemon.jobs] == [b"talk.wav"]


@pytest.mark.parametrize("source", ["- 0>/dev/null", "/", "/proc/self/mem"])
def test_unreadable_recording_is_bad_audio(path: Path, source: str) -> None:
    with FakeDaemon(path, [fail("bad-audio")]):
        code, _, err = asrctl(f"transcribe {source}", "")
    assert code == Exit.BAD_AUDIO
    assert err.count("\n") == 1


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_errors_keep_their_code_without_stderr(path: Path, redirection: str) -> None:
    with FakeDaemon(path, [fail("deadline-exceeded")]):
        assert asrctl("transcribe talk.wav", redirection) == (Exit.DEADLINE, "", "")
    assert asrctl("transcribe", redirection) == (Exit.USAGE, "", "")


@pytest.mark.parametrize("command", ["status", "health", "watch"])
def test_reader_that_is_gone_is_no_error_message(path: Path, command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with FakeDaemon(path), OwnedFd(writer):
        assert asrctl(command, "", writer) == (Exit.BROKEN_PIPE, "", "")
