"""The progress bar of `asrctl transcribe`: audio done, speed, time left."""

import shutil
import time
from collections.abc import Callable
from typing import TextIO

from asrd.events import Progress
from asrd.plaintext import fit

_REDRAW_SECONDS = 0.1
_BAR, _LABEL_MAX = 24, 30


class ProgressBar:
    """One line at the bottom of a terminal; draws nothing where `stream` is none."""

    def __init__(
        self, stream: TextIO, label: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream if stream.isatty() else None
        self._label = fit(label)
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
        # Counted from the first progress: what came before is mostly waiting for a worker.
        began, done_before = self._first
        speed = (done - done_before) / (now - began) if now > began else 0.0
        line = progress_line(self._label, done, progress.audio_seconds, speed)
        columns = shutil.get_terminal_size().columns
        self._write(f"\r{line[: columns - 1]}\x1b[K")
        self._visible = True

    def clear(self) -> None:
        """Off the terminal, so that something else can be written there."""
        if self._visible:
            self._write("\r\x1b[K")
            self._visible = False
            self._drawn_at = float("-inf")

    def _write(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()


def progress_line(label: str, done: float, total: float | None, speed: float) -> str:
    """`done` and `total` in seconds of audio, `speed` in seconds of audio per second."""
    if len(label) > _LABEL_MAX:
        label = "…" + label[-_LABEL_MAX + 1 :]
    parts = [label]
    if total:
        share = min(done / total, 1.0)
        filled = int(share * _BAR)
        parts.append(f"[{'#' * filled}{'.' * (_BAR - filled)}] {share:4.0%}")
        parts.append(f"{clock(done)} / {clock(total)}")
    else:
        parts.append(clock(done))
    if speed > 0:
        parts.append(f"{speed:.1f}x")
        if total:
            parts.append(f"{clock(max(total - done, 0) / speed)} left")
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
