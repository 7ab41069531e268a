"""`asrctl top`: the lines and keys of its view, and a real terminal."""

import fcntl
import os
import pty
import struct
import termios
from pathlib import Path
from typing import Any

import pytest

from asrd.asrctl.cells import cells
from asrd.asrctl.cli import main
from asrd.asrctl.table import job_table
from asrd.asrctl.top import Style, View
from asrd.exitcodes import Exit
from asrd.snapshot import read_snapshot
from tests.support.fake_daemon import PATIENCE, STATUS, FakeDaemon
from tests.support.subprocesses import read_terminal, started

WORKERS = [{"name": "0", "state": "busy"}, {"name": "1", "state": "failed", "reason": "no model"}]
CRASHES = [{"time": "2026-11-28T12:00:00.000Z", "worker": "1", "exit": "killed by SIGSEGV"}]


def view(*jobs: str, **status: Any) -> View:
    made = View()
    update(made, *jobs, **status)
    return made


def update(made: View, *jobs: str, **status: Any) -> None:
    listed = [{"job_id": job, "user": "user 7", "age_ms": 1000} for job in jobs]
    made.update(read_snapshot({**STATUS, "job_list": listed, **status}))


def texts(made: View, rows: int = 30, columns: int = 100) -> list[str]:
    return [text.rstrip() for text, _ in made.lines(rows, columns)]


def chosen(made: View) -> str:
    (line,) = (text for text, style in made.lines(30, 100) if style is Style.CHOSEN)
    return line.split()[0]


def test_screen_shows_workers_jobs_and_deaths() -> None:
    made = view("a", "b", workers=WORKERS, crashes=CRASHES)
    lines = made.lines(30, 100)
    assert len(lines) == 30
    found = "\n".join(texts(made))
    for text in (
        *("asrd 1 · ok · up 0 ms", "  ! worker 1: no model", "WORKER  STATE"),
        *("JOB  USER    WORKER  AGE    ATTEMPTS", "a    user 7  waits   1.0 s  0"),
        *("2026-11-28T12:00:00.000Z worker 1 died: killed by SIGSEGV", "q: quit"),
    ):
        assert text in found
    styles = {text.split()[0]: style for text, style in lines if text.strip()}
    assert (styles["0"], styles["1"], styles["a"]) == (Style.PLAIN, Style.BAD, Style.CHOSEN)


def test_keys_choose_a_job_which_stays_chosen() -> None:
    made = view("a", "b", "c")
    for key, expected in (("k", "a"), ("j", "b"), ("KEY_DOWN", "c"), ("j", "c"), ("KEY_UP", "b")):
        made.press(key)
        assert chosen(made) == expected
    update(made, "x", "a", "b")
    assert chosen(made) == "b"
    update(made, "x", "y")
    assert chosen(made) == "y"
    update(made)
    made.press("j")
    made.press("c")
    assert "no jobs that you may see" in texts(made)
    assert made.cancelled is None


def test_cancelling_is_confirmed() -> None:
    made = view("a", "b")
    for answer, expected in (("n", None), ("q", None), ("y", "b")):
        made.press("j")
        made.press("c")
        assert texts(made)[-1] == "cancel b? y/n"
        made.press(answer)
        assert (made.cancelled, made.ended) == (expected, False)
    made.press("q")
    assert made.ended


def test_chosen_job_is_seen_on_any_terminal() -> None:
    jobs = [f"job-{number}" for number in range(50)]
    made = view(*jobs, workers=WORKERS)
    for _ in range(40):
        made.press("j")
    for rows in (1, 2, 10, 14, 24, 100):
        for columns in (1, 20, 79):
            lines = made.lines(rows, columns)
            assert len(lines) == rows
            assert all(cells(text) <= columns for text, _ in lines)
    assert chosen(made) == "job-40"
    assert len([line for line in texts(made, 24) if line.startswith("job-")]) > 5


def test_what_a_client_wrote_cannot_reach_the_terminal() -> None:
    made = view("\x1b[2J\u202eevil", problems=["\x1b]0;title\x07"])
    made.press("c")
    made.tell("\x9b31m")
    assert all(text.isprintable() for text in texts(made))


def test_note_is_shown_until_the_state_after_the_next() -> None:
    made = View()
    made.tell("unreachable: gone")
    assert texts(made)[-1] == "unreachable: gone"
    update(made)
    assert texts(made)[-1] == "unreachable: gone"
    update(made)
    assert texts(made)[-1].startswith("up, down")


def test_job_is_cancelled_on_a_real_terminal(path: Path) -> None:
    def status(peer: Any, data: Any) -> None:
        assert data["jobs"]
        peer.send("status", **STATUS, job_list=[{"job_id": "日本-1"}, {"job_id": "b"}])

    terminal, other_end = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    with FakeDaemon(path, others={"status": status}) as daemon:
        asrctl = started(
            *("top", "--interval", "0.1"),
            **dict.fromkeys(("stdin", "stdout", "stderr"), other_end),
            env=environment,
        )
        os.close(other_end)
        read_terminal(terminal, lambda seen: "日本-1" in seen and "q: quit" in seen)
        os.write(terminal, b"\x1bOBc")
        read_terminal(terminal, lambda seen: "cancel b" in seen)
        os.write(terminal, b"y")
        (asked,) = daemon.wait_for("cancel")
        assert asked.data == {"job_id": "b"}
        os.write(terminal, b"q")
        assert asrctl.wait(PATIENCE) == Exit.OK
    os.close(terminal)


def test_without_a_terminal_it_says_what_else_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top"]) == Exit.USAGE
    assert "asrctl status --jobs" in capsys.readouterr().err


def test_jobs_are_printed_as_a_table(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = {
        **{"job_id": "ab12", "user": "user 1000", "worker": "0", "age_ms": 5000, "attempts": 1},
        **{"work_ms": 4000, "audio_seconds_done": 60, "audio_seconds": 240},
    }

    def status(peer: Any, data: Any) -> None:
        peer.send("status", **STATUS, job_list=[job])

    with FakeDaemon(path, others={"status": status}):
        assert main(["status", "--jobs"]) == Exit.OK
    assert capsys.readouterr().out == (
        "JOB   USER       WORKER  AGE    ATTEMPTS  DONE               SPEED  LEFT\n"
        "ab12  user 1000  0       5.0 s  1         1:00 of 4:00, 25%  15.0x  12.0 s\n"
    )


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ({}, "12.0 s"),
        ({"audio_seconds_done": 250}, "0 ms"),
        ({"worker": None}, "-"),
        ({"audio_seconds": None}, "-"),
        ({"work_ms": 0}, "-"),
        ({"audio_seconds_done": 0}, "-"),
    ],
)
def test_time_left_is_shown_once_it_is_known(changed: dict[str, Any], left: str) -> None:
    job = {"worker": "0", "work_ms": 4000, "audio_seconds_done": 60, "audio_seconds": 240}
    snapshot = read_snapshot({**STATUS, "job_list": [job | changed]})
    head, row = job_table(snapshot.job_list)
    assert (head.split()[-1], row[head.index("LEFT") :]) == ("LEFT", left)
