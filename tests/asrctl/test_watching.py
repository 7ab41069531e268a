"""Recordings that arrive in a folder."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asrd.asrctl import watching
from asrd.asrctl.cli import main
from asrd.asrctl.watching import QUIET_SECONDS, Arrivals
from asrd.exitcodes import Exit
from tests.asrctl.conftest import make_recording
from tests.support.fake_daemon import PATIENCE, FakeDaemon, Peer, answer, fail
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


def without_pauses(monkeypatch: pytest.MonkeyPatch, ended: Callable[[], bool]) -> None:
    """Lets no time pass between two looks; Ctrl-C comes at the end, or after 20 looks."""
    looks = iter(range(20))

    def sleep(seconds: float) -> None:
        if next(looks, None) is None or ended():
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(watching, "QUIET_SECONDS", 0.0)


def test_only_what_the_daemon_could_take_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [make_recording(tmp_path, f"{letter}.wav") for letter in "abcd"]
    # The last one was left out, since the daemon could not be reached.
    codes = [Exit.BAD_AUDIO, Exit.BUSY, Exit.UNREACHABLE]
    batches: list[list[str]] = []

    def transcribe(batch: list[str]) -> dict[str, Exit]:
        batches.append(batch)
        if len(batches) == 1:
            return dict(zip(names, codes, strict=False))
        return dict.fromkeys(batch, Exit.UNAVAILABLE if len(batches) == 2 else Exit.OK)

    without_pauses(monkeypatch, lambda: False)
    assert watching.watch(tmp_path, transcribe) is Exit.OK
    assert batches == [names, names[1:], names[1:]]


def test_recording_waits_for_a_daemon_that_can_serve(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    make_recording(folder, "b.wav")
    without_pauses(monkeypatch, (out / "b.txt").exists)
    with FakeDaemon(path, [fail("unavailable"), answer("B")]):
        main(["transcribe", "--watch", str(folder), "--output-dir", str(out)])
    assert (out / "b.txt").read_text() == "B\n"


def test_text_of_half_a_recording_is_replaced(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    name = make_recording(folder, "a.wav")

    def half(peer: Peer, request: dict[str, Any]) -> None:
        with Path(name).open("ab") as growing:
            growing.write(b"the rest")
        answer("half")(peer, request)

    with FakeDaemon(path, [half, answer("whole")]) as daemon:
        without_pauses(monkeypatch, lambda: len(daemon.jobs) == 2)
        main(["transcribe", "--watch", str(folder), "--output-dir", str(out)])
    assert (out / "a.txt").read_text() == "whole\n"


def test_watching_goes_on_whatever_arrives(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    (folder / "loop.wav").symlink_to("loop.wav")
    # The text of sub/a.wav has no place until somebody repairs that.
    (out / "sub").touch()

    def ended() -> bool:
        if not (folder / "sub").exists():
            (folder / "sub").mkdir()
            make_recording(folder / "sub", "a.wav")
        if "File exists" in capsys.readouterr().err:
            (out / "sub").unlink()
        return (out / "sub" / "a.txt").exists()

    without_pauses(monkeypatch, ended)
    with FakeDaemon(path, [answer("A")]):
        assert main(["transcribe", "--watch", str(folder), "-o", str(out)]) == Exit.OK
    assert (out / "sub" / "a.txt").read_text() == "A\n"
