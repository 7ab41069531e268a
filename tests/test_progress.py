"""The progress bar."""

import io

import pytest

from asrd.asrctl.progress import ProgressBar, clock, progress_line
from asrd.events import Progress


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
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


@pytest.mark.parametrize(
    ("done", "total", "speed", "line"),
    [
        (
            30.0,
            120.0,
            4.5,
            "a.wav  [######..................]  25%  0:30 / 2:00  4.5x  0:20 left",
        ),
        (0.0, 120.0, 0.0, "a.wav  [........................]   0%  0:00 / 2:00"),
        (
            121.0,
            120.0,
            2.0,
            "a.wav  [########################] 100%  2:01 / 2:00  2.0x  0:00 left",
        ),
        (30.0, None, 4.5, "a.wav  0:30  4.5x"),
        (0.0, 0.0, 0.0, "a.wav  0:00"),
    ],
)
def test_line(done: float, total: float | None, speed: float, line: str) -> None:
    assert progress_line("a.wav", done, total, speed) == line


def test_a_long_name_keeps_its_end() -> None:
    assert progress_line("x" * 40 + "end.wav", 0, None, 0) == "…" + "x" * 22 + "end.wav  0:00"


def test_drawn_on_a_terminal_at_a_bearable_rate() -> None:
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


def test_nothing_elsewhere() -> None:
    plain = io.StringIO()
    bar = ProgressBar(plain, "a.wav")
    bar.update(Progress("j", 10.0, 100.0))
    bar.clear()
    assert plain.getvalue() == ""
