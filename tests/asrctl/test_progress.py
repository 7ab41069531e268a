"""The progress bar."""

import fcntl
import io
import os
import pty
import struct
import termios

import pytest

from asrd.asrctl.cells import cells
from asrd.asrctl.progress import FilesBar, ProgressBar, clock, progress_line, terminal_columns
from asrd.wire.client_events import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3600, "1:00:00")]
)
def test_clock_shows_hours_only_if_there_are_any(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


@pytest.mark.parametrize(
    ("done", "total", "speed", "line"),
    [
        (30, 120, 4.5, "[######..................]  25%  0:30 / 2:00  4.5x  0:20 left"),
        (0, 120, 0, "[........................]   0%  0:00 / 2:00"),
        (121, 120, 2, "[########################] 100%  2:01 / 2:00  2.0x  0:00 left"),
        (30, None, 4.5, "0:30  4.5x"),
        (0, 0, 0, "0:00"),
    ],
)
def test_line_has_the_figures_that_are_known(
    done: float, total: float | None, speed: float, line: str
) -> None:
    assert progress_line("a.wav", done, total, speed) == f"a.wav  {line}"


def test_long_name_keeps_its_end() -> None:
    assert progress_line("x" * 40 + "end.wav", 0, None, 0) == "…" + "x" * 22 + "end.wav  0:00"


def test_bar_is_redrawn_at_most_ten_times_a_second() -> None:
    terminal, now = Terminal(), Clock()
    bar = ProgressBar(terminal, "\x1b.wav", now)
    bar.update(Progress("j", 10.0, 100.0))
    assert terminal.getvalue().startswith("\r\\x1b.wav  [##...")
    assert terminal.getvalue().endswith("0:10 / 1:40\x1b[K")
    now.now = 0.05
    before = terminal.getvalue()
    bar.update(Progress("j", 20.0, 100.0))
    assert terminal.getvalue() == before
    now.now = 10.0
    bar.update(Progress("j", 30.0, 100.0))
    assert "0:30 / 1:40  2.0x  0:35 left" in terminal.getvalue()
    bar.clear()
    assert terminal.getvalue().endswith("\r\x1b[K")
    before = terminal.getvalue()
    bar.clear()
    assert terminal.getvalue() == before


@pytest.mark.parametrize(("stream", "term"), [(io.StringIO(), "xterm"), (Terminal(), "dumb")])
def test_bar_needs_a_terminal_that_can_clear_a_line(
    stream: io.StringIO, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    bar, of_all = ProgressBar(stream, "a.wav"), FilesBar(stream, 2)
    bar.update(Progress("j", 10.0, 100.0))
    of_all.update("a.wav", Progress("j", 10.0, 100.0))
    bar.clear()
    of_all.end("a.wav")
    assert stream.getvalue() == ""


WIDE = "会議の録音" * 8 + ".wav"


@pytest.mark.parametrize("label", ["a.wav", WIDE, "e\u0301" * 60])
@pytest.mark.parametrize("room", [159, 60, 59, 20, 12, 1, 0])
def test_line_fits_the_terminal(label: str, room: int) -> None:
    line = progress_line(label, 3000.0, 7200.0, 13.9, room)
    assert cells(line) <= room
    # A figure is shown whole or not at all.
    assert not line.endswith(("50:00 /", "13.", "5:0"))


@pytest.mark.parametrize(
    ("room", "line"),
    [
        (79, "…会議の録音.wav  [######..................]  25%  0:30 / 2:00  4.5x  0:20 left"),
        (46, "…の録音.wav  25%  0:30 / 2:00  4.5x  0:20 left"),
        (45, "…の録音.wav  25%  0:30 / 2:00  4.5x"),
        (30, "…の録音.wav  25%  0:30 / 2:00"),
        (13, "…の録音.wav"),
    ],
)
def test_narrow_terminal_gets_fewer_figures(room: int, line: str) -> None:
    assert progress_line(WIDE, 30.0, 120.0, 4.5, room) == line


def test_width_is_that_of_the_terminal_or_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    other_end, terminal = pty.openpty()
    with open(terminal, "w") as stream:
        for columns, named, found in [
            (40, None, 40),
            (30, None, 30),
            (30, "20", 20),
            (30, "200", 30),
            (30, "wide", 30),
            (0, "50", 50),
            (0, "0", 80),
            (0, None, 80),
        ]:
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            if named is None:
                monkeypatch.delenv("COLUMNS", raising=False)
            else:
                monkeypatch.setenv("COLUMNS", named)
            assert terminal_columns(stream) == found
    os.close(other_end)


def test_terminal_that_is_gone_ends_only_the_bar() -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    bar = ProgressBar(Gone(), "a.wav")
    bar.update(Progress("j", 10.0, 100.0))
    bar.clear()


def files_line(terminal: Terminal) -> str:
    return terminal.getvalue().rpartition("\r")[2].removesuffix("\x1b[K")


def test_several_files_have_one_line() -> None:
    terminal, now = Terminal(), Clock()
    bar = FilesBar(terminal, 10, now)
    bar.end("unreadable.wav")
    assert terminal.getvalue() == ""
    bar.update("a.wav", Progress("1", 0.0, 100.0))
    assert files_line(terminal) == "1 of 10 files  1 running: 0:00 / 1:40"
    now.now = 10.0
    bar.update("b.wav", Progress("2", 20.0, 300.0))
    # Seven have not begun: of 200 s each, as far as is known.
    expected = "1 of 10 files  2 running: 0:20 / 6:40  2.0x  about 14:50 left"
    assert files_line(terminal) == expected
    now.now = 19.0
    bar.update("a.wav", Progress("1", 75.0, 100.0))
    bar.end("a.wav")
    assert files_line(terminal) == "2 of 10 files  1 running: 0:20 / 5:00  5.0x  about 5:36 left"
    bar.end("b.wav")
    assert files_line(terminal) == "3 of 10 files  5.0x  about 4:40 left"
    bar.close()
    assert terminal.getvalue().endswith("\r\x1b[K")
    before = terminal.getvalue()
    bar.end("c.wav")
    assert terminal.getvalue() == before


def test_line_of_several_files_without_their_lengths() -> None:
    terminal, now = Terminal(), Clock()
    bar = FilesBar(terminal, 2, now)
    bar.update("a.mp3", Progress("1", 0.0))
    now.now = 1.0
    bar.update("a.mp3", Progress("1", 30.0))
    assert files_line(terminal) == "0 of 2 files  1 running: 0:30  30.0x"


def test_message_takes_the_place_of_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    bar = FilesBar(terminal, 2, Clock())
    bar.update("a.wav", Progress("1", 1.0, 2.0))
    bar.say("b.wav: no audio")
    assert terminal.getvalue().endswith("\x1b[K\r\x1b[K")
    assert capsys.readouterr().err == "asrctl: b.wav: no audio\n"
    bar.update("a.wav", Progress("1", 2.0, 2.0))
    assert files_line(terminal).startswith("0 of 2 files  1 running: 0:02")


@pytest.mark.parametrize(
    ("columns", "shown"),
    [(40, "0 of 2 files  1 running: 0:01 / 0:02"), (20, "0 of 2 files"), (6, "0 of ")],
)
def test_line_of_several_files_fits_a_narrow_terminal(
    columns: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    FilesBar(terminal, 2, Clock()).update("a.wav", Progress("1", 1.0, 2.0))
    assert files_line(terminal) == shown
