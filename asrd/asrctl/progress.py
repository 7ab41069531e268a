"""The progress bar of `asrctl transcribe`: audio done, speed, time left."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from asrd.asrctl.cells import cells, cut, cut_start
from asrd.safe_text import escape
from asrd.wire.client_events import Progress

_REDRAW_SECONDS = 0.1
_BAR, _BAR_ROOM = 24, 60
_LABEL_MIN, _LABEL_MAX = 12, 30
_COLUMNS = 80


class ProgressBar:
    """One line at the bottom of a terminal; nothing if `stream` is no terminal, or a dumb one."""

    def __init__(
        self, stream: TextIO, label: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream if can_redraw(stream) else None
        self._label = escape(label)
        self._clock = clock
        self._first: tuple[float, float] | None = None
        self._drawn_at = float("-inf")
        self._visible = False

    def update(self, progress: Progress) -> None:
        now, done = self._clock(), progress.audio_seconds_done
        if self._first is None:
            self._first = now, done
        if self._stream is None or now - self._drawn_at < _REDRAW_SECONDS:
            return
        self._drawn_at = now
        # Measured from the first progress: the time before it is mostly spent in the queue.
        began, done_before = self._first
        speed = (done - done_before) / (now - began) if now > began else 0.0
        # The window may be resized at any time; a full line would wrap.
        room = terminal_columns(self._stream) - 1
        line = progress_line(self._label, done, progress.audio_seconds, speed, room)
        self._write(f"\r{line}\x1b[K")
        self._visible = True

    def clear(self) -> None:
        """Removes the bar, so that something else can be written in its place."""
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
    parts = [cut_start(label, max(_LABEL_MIN, min(left, _LABEL_MAX))), *figures]
    while cells(line := "  ".join(parts)) > room and len(parts) > 1:
        parts.pop()
    return cut(line, room)


def clock(seconds: float) -> str:
    """Returns m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
