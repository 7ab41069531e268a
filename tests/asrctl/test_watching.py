"""Recordings that arrive in a folder."""

import signal
from pathlib import Path

from asrd.asrctl.watching import QUIET_SECONDS, Arrivals
from asrd.exitcodes import Exit
from tests.asrctl.conftest import make_recording
from tests.support.fake_daemon import PATIENCE, FakeDaemon, answer, fail
from tests.support.raw import wait_for
from tests.support.subprocesses import started


def test_recording_is_taken_once_it_has_been_left_alone(tmp_path: Path) -> None:
    now = 0.0
    arrivals = Arrivals(lambda: now)
    name = make_recording(tmp_path, "a.wav")
    assert arrivals.look(tmp_path) == []
    now += QUIET_SECONDS / 2
    with Path(name).open("ab") as growing:
        growing.write(b"more")
    assert arrivals.look(tmp_path) == []
    now += QUIET_SECONDS / 2
    assert arrivals.look(tmp_path) == []
    now += QUIET_SECONDS / 2
    assert arrivals.look(tmp_path) == [name]
    arrivals.take(name)
    assert arrivals.look(tmp_path) == []
    Path(name).write_bytes(b"another version")
    assert arrivals.look(tmp_path) == []
    now += QUIET_SECONDS
    assert arrivals.look(tmp_path) == [name]


def test_what_arrives_is_transcribed_until_ctrl_c(path: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    make_recording(folder, "bad.wav")
    with FakeDaemon(path, [fail("bad-audio"), answer("late")]) as daemon:
        asrctl = started("transcribe", "--watch", str(folder), "--output-dir", str(out))
        daemon.wait_for("transcribe")
        make_recording(folder, "late.wav")
        wait_for("the text of the second one", (out / "late.txt").exists)
        asrctl.send_signal(signal.SIGINT)
        output, _ = asrctl.communicate(None, PATIENCE)
        assert (asrctl.returncode, output) == (Exit.OK, b"")
        # The one that failed was not tried again.
        assert len(daemon.jobs) == 2
    assert [file.name for file in out.iterdir()] == ["late.txt"]
