"""The progress of `asrctl transcribe` on a terminal: audio done, speed, time left."""

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TextIO

from asrd.asrctl.cells import cells, cut, cut_start
from asrd.asrctl.streams import complain
from asrd.safe_text import escape
from asrd.wire.client_events import Progress

_REDRAW_SECONDS = 0.1
_BAR, _BAR_ROOM = 24, 60
_LABEL_MIN, _LABEL_MAX = 12, 30
_COLUMNS = 80


class _Line:
    """One line at the bottom of a terminal; nothing if `stream` is no terminal, or a dumb one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream if can_redraw(stream) else None
        self._drawn_at = float("-inf")
        self._visible = False

    def draw(self, now: float, text: Callable[[int], str], at_once: bool = False) -> None:
        """Draws ten times a second at most, unless `at_once`. `text` returns what fits a number
        of cells."""
        if self._stream is None or not (at_once or now - self._drawn_at >= _REDRAW_SECONDS):
            return
        self._drawn_at = now
        # The window may be resized at any time; a full line would wrap.
        self._write(f"\r{text(terminal_columns(self._stream) - 1)}\x1b[K")
        self._visible = True

    def clear(self) -> None:
        if self._visible:
            self._write("\r\x1b[K")
            self._visible = False
            self._drawn_at = float("-inf")

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # The terminal is gone, which is no reason to give up the job.
            self._stream = None


class ProgressBar:
    """The line of one recording."""

    def __init__(
        self, stream: TextIO, label: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._line = _Line(stream)
        self._label = escape(label)
        self._clock = clock
        self._first: tuple[float, float] | None = None

    def update(self, progress: Progress) -> None:
        now, done = self._clock(), progress.audio_seconds_done
        if self._first is None:
            self._first = now, done
        # Measured from the first progress: the time before it is mostly spent in the queue.
        began, done_before = self._first
        speed = (done - done_before) / (now - began) if now > began else 0.0
        whole = progress.audio_seconds
        self._line.draw(now, lambda room: progress_line(self._label, done, whole, speed, room))

    def clear(self) -> None:
        """Removes the bar, so that something else can be written in its place."""
        self._line.clear()


class FilesBar:
    """The line of several recordings at once. Threads may share it."""

    def __init__(
        self, stream: TextIO, count: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._line = _Line(stream)
        self._clock = clock
        self._count = count
        self._running: dict[str, Progress] = {}
        self._ended: list[Progress] = []
        self._without_progress = 0
        self._first: tuple[float, float] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def update(self, name: str, progress: Progress) -> None:
        with self._lock:
            self._running[name] = progress
            if self._first is None:
                self._first = self._clock(), self._done()
            self._draw()

    def end(self, name: str) -> None:
        """Counts a recording, whatever became of it."""
        with self._lock:
            if (progress := self._running.pop(name, None)) is not None:
                self._ended.append(progress)
            else:
                self._without_progress += 1
            self._draw(at_once=True)

    def say(self, message: str) -> None:
        """Writes a message in the place of the line, which the next progress draws again."""
        with self._lock:
            self._line.clear()
            complain(message)

    def close(self) -> None:
        """Removes the line; later progress draws none."""
        with self._lock:
            self._line.clear()
            self._closed = True

    def _draw(self, at_once: bool = False) -> None:
        # Without progress (it may not be wanted) there is no line.
        if self._first is not None and not self._closed:
            self._line.draw(self._clock(), self._text, at_once)

    def _text(self, room: int) -> str:
        ended = len(self._ended) + self._without_progress
        figures = [f"{ended} of {self._count} files"]
        if self._running:
            figures.append(f"{len(self._running)} running: {_share(self._running.values())}")
        if (speed := self._speed()) > 0:
            figures.append(f"{speed:.1f}x")
            if (left := self._left()) is not None:
                figures.append(f"about {clock(left / speed)} left")
        return _fitted(figures, room)

    def _done(self) -> float:
        return sum(each.audio_seconds_done for each in [*self._ended, *self._running.values()])

    def _speed(self) -> float:
        began, done_before = self._first or (self._clock(), 0.0)
        seconds = self._clock() - began
        return (self._done() - done_before) / seconds if seconds > 0 else 0.0

    def _left(self) -> float | None:
        """Seconds of audio that are left: a recording of unknown length, as one that has not begun,
        counts as the mean of those with a known one. None without any of these."""
        seen = [*self._ended, *self._running.values()]
        known = [each.audio_seconds for each in seen if each.audio_seconds]
        if not known:
            return None
        mean = sum(known) / len(known)
        left = [
            max(0.0, (each.audio_seconds or mean) - each.audio_seconds_done)
            for each in self._running.values()
        ]
        return sum(left) + mean * (self._count - len(seen) - self._without_progress)


def can_redraw(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def terminal_columns(stream: TextIO) -> int:
    """Returns the width of the terminal, or $COLUMNS if it is smaller."""
    named = os.environ.get("COLUMNS", "")
    widths = [int(named[:6])] if named.isdecimal() else []
    with suppress(OSError):
        widths.append(os.get_terminal_size(stream.fileno()).columns)
    # A terminal of unknown size reports 0.
    return min(filter(None, widths), default=_COLUMNS)


def progress_line(
    label: str, done: float, total: float | None, speed: float, room: int = 2 * _COLUMNS
) -> str:
    """Returns a line that fits `room` cells: the label is shortened first, then figures are left
    out. `done` and `total` are seconds of audio, `speed` is seconds of audio per second."""
    figures = []
    if total:
        share = min(done / total, 1.0)
        filled = int(share * _BAR)
        bar = f"[{'#' * filled}{'.' * (_BAR - filled)}] " if room >= _BAR_ROOM else ""
        figures.append(f"{bar}{share:4.0%}".lstrip())
        figures.append(f"{clock(done)} / {clock(total)}")
    else:
        figures.append(clock(done))
    if speed > 0:
        figures.append(f"{speed:.1f}x")
        if total:
            figures.append(f"{clock(max(total - done, 0) / speed)} left")
    left = room - len("  ".join(["", *figures]))
    return _fitted([cut_start(label, max(_LABEL_MIN, min(left, _LABEL_MAX))), *figures], room)


def _fitted(parts: list[str], room: int) -> str:
    """Returns the parts in one line; the last ones are left out where there is no room."""
    while cells(line := "  ".join(parts)) > room and len(parts) > 1:
        parts = parts[:-1]
    return cut(line, room)


def _share(running: Iterable[Progress]) -> str:
    """Returns how much of the recordings is done, of how much if all lengths are known."""
    done, lengths = zip(*((p.audio_seconds_done, p.audio_seconds) for p in running), strict=True)
    return f"{clock(sum(done))} / {clock(sum(lengths))}" if all(lengths) else clock(sum(done))


def clock(seconds: float) -> str:
    """Returns m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
