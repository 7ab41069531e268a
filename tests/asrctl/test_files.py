"""Folders, several formats, and files that are never half written."""

import errno
import fcntl
import json
import os
import pty
import resource
import signal
import struct
import termios
import threading
from pathlib import Path
from typing import Any

import pytest

from asrd.asrctl import files
from asrd.asrctl.cells import cells
from asrd.asrctl.cli import main
from asrd.asrctl.streams import OutputLost
from asrd.exitcodes import Exit
from asrd.formats import FORMATS
from tests.asrctl.conftest import make_recording
from tests.support.fake_daemon import (
    PATIENCE,
    STATUS,
    Behaviour,
    FakeDaemon,
    answer,
    begin,
    fail,
    never,
)
from tests.support.procfs import asleep
from tests.support.raw import wait_for
from tests.support.subprocesses import read_terminal, started

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with recordings: a.wav, sub/b.mp3 and sub/b.wav; and with other files."""
    folder = tmp_path / "talks"
    (folder / "sub").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in ("a.wav", "sub/b.mp3", "sub/b.wav", "notes.txt", ".c.wav", ".hidden/d.wav"):
        make_recording(folder, name)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def with_workers(count: int) -> dict[str, Behaviour]:
    workers: list[dict[str, Any]] = [
        {"name": str(number), "state": "ready"} for number in range(count)
    ]
    workers.append({"name": "spare", "state": "ready", "spare": True})
    return {"status": lambda peer, data: peer.send("status", **{**STATUS, "workers": workers})}


def test_output_has_the_folders_of_the_recordings(
    path: Path, tree: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    with FakeDaemon(path, [answer("A"), answer("B"), answer("C")]):
        assert main(["transcribe", "-r", str(tree), "--output-dir", str(out)]) == Exit.OK
    assert contents(out) == {"a.txt": "A\n", "sub/b.mp3.txt": "B\n", "sub/b.wav.txt": "C\n"}
    assert capsys.readouterr() == ("", "asrctl: 3 done\n")


def test_folder_on_stdout(path: Path, tree: Path, capsys: Capture) -> None:
    with FakeDaemon(path, [answer("A")]):
        assert main(["transcribe", "-r", str(tree), "--format", "json"]) == Exit.OK
    names = [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()]
    assert names == [str(tree / name) for name in ("a.wav", "sub/b.mp3", "sub/b.wav")]


@pytest.mark.parametrize("formats", ["srt,json,txt", "all"])
def test_several_formats_of_one_job(
    path: Path, recording: str, tmp_path: Path, formats: str
) -> None:
    out = tmp_path / "out"
    with FakeDaemon(path, [answer("A")]) as daemon:
        arguments = ["--format", formats, "--output-dir", str(out)]
        assert main(["transcribe", recording, *arguments]) == Exit.OK
    wanted = list(FORMATS) if formats == "all" else formats.split(",")
    assert sorted(contents(out)) == sorted(f"talk.{name}" for name in wanted)
    assert len(daemon.jobs) == 1


def test_what_is_done_is_skipped_and_the_rest_is_resumed(
    path: Path, tree: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    command = ["transcribe", "-r", str(tree), "--output-dir", str(out)]
    with FakeDaemon(path, [answer("A"), fail("internal"), answer("C"), answer("new")]) as daemon:
        assert main(command) == Exit.FAILED
        assert capsys.readouterr().err.endswith("asrctl: 2 done, 1 failed\n")
        assert main(command) == Exit.OK
        assert len(daemon.jobs) == 4
        assert "1 done, 2 skipped" in capsys.readouterr().err
        # A recording that has changed since is not done.
        os.utime(tree / "a.wav", ns=(1 << 61, 1 << 61))
        assert main(command) == Exit.OK
        assert len(daemon.jobs) == 5
        assert main([*command, "--overwrite"]) == Exit.OK
        assert len(daemon.jobs) == 8


def test_as_many_at_once_as_there_are_workers(path: Path, tree: Path, tmp_path: Path) -> None:
    together = threading.Barrier(2)
    alone = threading.Semaphore(2)

    def behave(peer: Any, request: dict[str, Any]) -> None:
        assert alone.acquire(blocking=False)

        def later() -> None:
            if len(daemon.jobs) < 3:
                together.wait(PATIENCE)
            alone.release()
            answer("x")(peer, request)

        threading.Thread(target=later).start()

    out = tmp_path / "out"
    with FakeDaemon(path, [behave], others=with_workers(2)) as daemon:
        assert main(["transcribe", "-r", str(tree), "--output-dir", str(out)]) == Exit.OK
    assert len(contents(out)) == 3
    assert not together.broken


def test_ctrl_c_cancels_all_jobs(path: Path, tree: Path, tmp_path: Path) -> None:
    command = ["transcribe", "-r", str(tree), "--output-dir", str(tmp_path / "out")]
    with FakeDaemon(path, [never], others=with_workers(2)) as daemon:
        asrctl = started(*command)
        daemon.wait_for("transcribe", 2)
        wait_for("a wait in the kernel", lambda: asleep(asrctl.pid))
        asrctl.send_signal(signal.SIGINT)
        out, err = asrctl.communicate(None, PATIENCE)
        assert (asrctl.returncode, out, err) == (Exit.INTERRUPTED, b"", b"asrctl: interrupted\n")
        daemon.wait_for_hang_up()
    assert contents(tmp_path / "out") == {}


def test_progress_of_several_at_once_on_a_terminal(path: Path, tree: Path, tmp_path: Path) -> None:
    terminal, other_end = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
    command = ["transcribe", "-r", str(tree), "--output-dir", str(tmp_path / "out")]
    behaviours = [answer("A"), answer("B"), begin("c", "d")]
    with FakeDaemon(path, behaviours, others=with_workers(2)):
        asrctl = started(*command, stdout=other_end, stderr=other_end)
        os.close(other_end)
        seen = read_terminal(terminal, lambda seen: "\r2 of 3 files" in seen)
        assert all(cells(line.removesuffix("\x1b[K")) < 30 for line in seen.split("\r"))
        wait_for("a wait in the kernel", lambda: asleep(asrctl.pid))
        asrctl.send_signal(signal.SIGINT)
        seen = read_terminal(terminal, lambda seen: "interrupted" in seen)
        # The line is removed before anything else is written.
        assert "\r\x1b[Kasrctl: interrupted" in seen
        assert asrctl.wait(PATIENCE) == Exit.INTERRUPTED
    os.close(terminal)


def test_quiet_shows_no_progress_of_several(path: Path, tree: Path, tmp_path: Path) -> None:
    terminal, other_end = pty.openpty()
    command = ["transcribe", "-r", str(tree), "--output-dir", str(tmp_path / "out")]
    behaviours = [answer("A"), answer("B"), fail("bad-audio")]
    with FakeDaemon(path, behaviours, others=with_workers(2)):
        asrctl = started(*command, "--quiet", stdout=other_end, stderr=other_end)
        os.close(other_end)
        seen = read_terminal(terminal, lambda seen: "as asked\r\n" in seen)
        assert asrctl.wait(PATIENCE) == Exit.BAD_AUDIO
    assert "files" not in seen
    os.close(terminal)


def test_unreachable_daemon_is_reported_once_for_a_folder(
    path: Path, tree: Path, tmp_path: Path, capsys: Capture
) -> None:
    command = ["transcribe", "-r", str(tree), "--output-dir", str(tmp_path / "out")]
    assert main(command) == Exit.UNREACHABLE
    assert capsys.readouterr().err.count("there is no daemon") == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("a.wav --format txt,pdf", "there is no 'pdf', but txt, "),
        ("a.wav --format txt,srt", "several formats need --output-dir"),
        ("-r . --format srt", "several files need --output-dir"),
        ("--live --format txt,srt", "writes one format"),
        ("--watch . a.wav --output-dir .", "there can be no FILE"),
        ("--watch . -o a.txt", "--watch needs --output-dir"),
        ("--watch .", "--watch needs --output-dir"),
        ("--watch /no/folder --output-dir .", "/no/folder is no folder"),
    ],
)
def test_wrong_usage(arguments: str, problem: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["transcribe", *arguments.split()])
    assert ended.value.code == Exit.USAGE
    assert problem in capsys.readouterr().err


def test_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "talk.txt"
    target.write_text("old")
    target.chmod(0o640)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
        with pytest.raises(OutputLost, match="File too large"):
            files.write(target, "x" * 101)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, previous)
    assert contents(tmp_path) == {"talk.txt": "old"}
    link = tmp_path / "link"
    link.symlink_to(target)
    files.write(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_pipes_in_a_folder_are_no_recordings(path: Path, tree: Path, capsys: Capture) -> None:
    os.mkfifo(tree / "z.wav")
    assert [found.name for found in files.media(tree)] == ["a.wav", "b.mp3", "b.wav"]


def test_names_that_would_meet_stay_whole(path: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.mp3", "a.mp3.wav", "a.wav"):
        make_recording(folder, name)
    with FakeDaemon(path, [answer("x")]):
        assert main(["transcribe", "-r", str(folder), "--output-dir", str(out)]) == Exit.OK
    assert sorted(contents(out)) == ["a.mp3.txt", "a.mp3.wav.txt", "a.wav.txt"]


def test_folder_that_cannot_be_read_is_reported_once(tree: Path, capsys: Capture) -> None:
    for _ in range(2):
        assert list(files.media(tree / "none")) == []
    assert capsys.readouterr().err == f"asrctl: {tree / 'none'}: No such file or directory\n"


def test_single_recording_is_not_skipped_in_silence(
    path: Path, recording: str, tmp_path: Path, capsys: Capture
) -> None:
    command = ["transcribe", recording, "--output-dir", str(tmp_path / "out")]
    with FakeDaemon(path, [answer("A")]):
        assert main(command) == Exit.OK
    assert capsys.readouterr().err == ""
    assert main(command) == Exit.OK
    assert "0 done, 1 skipped" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EACCES, errno.EBUSY])
def test_file_in_a_directory_that_takes_no_new_one_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    target = tmp_path / "talk.txt"

    def refuse(part: Path, whole: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputLost, match=os.strerror(number)):
        files.write(target, "new")
    target.write_text("an old one")
    files.write(target, "new")
    assert contents(tmp_path) == {"talk.txt": "new"}
