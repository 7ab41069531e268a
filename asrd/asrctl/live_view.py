"""Live text on a terminal: final words flow, and those that may still change are dim behind them.

Only the last line is ever drawn again, so that the text can be scrolled and copied. Pending words
that do not fit there are cut.
"""

from collections.abc import Callable

from asrd.asrctl.cells import cells, cut
from asrd.safe_text import transcript_line
from asrd.wire.client_events import TranscriptChunk

_DIM, _NOT_DIM = "\x1b[2m", "\x1b[22m"
_CLEAR_LINE = "\r\x1b[K"
# Room for any character.
_ROOM_MIN = 2


class LiveView:
    """`write` writes to the terminal at once; `columns` returns its width, which may change."""

    def __init__(self, write: Callable[[str], object], columns: Callable[[], int]) -> None:
        self._write = write
        self._columns = columns
        self._line = ""
        self._drawn = False

    def update(self, chunk: TranscriptChunk) -> None:
        # A full line would wrap.
        room = max(self._columns() - 1, _ROOM_MIN)
        *full, self._line = wrapped((self._line + _spaced(chunk.text)).lstrip(), room)
        pending = cut(_spaced(chunk.pending or ""), room - cells(self._line))
        lines = "".join(f"{line}\n" for line in full)
        dim = f"{_DIM}{pending}{_NOT_DIM}" if pending else ""
        self._write(f"{_CLEAR_LINE}{lines}{self._line}{dim}")
        self._drawn = True

    def end(self) -> None:
        """Leaves the final words alone; what follows begins on a line of its own."""
        if self._drawn:
            self._write(f"{_CLEAR_LINE}{self._line}\n" if self._line else _CLEAR_LINE)
            self._drawn = False


def wrapped(text: str, room: int) -> list[str]:
    """Returns the text in lines that fit, of which the last goes on: broken at spaces where there
    are some."""
    lines = []
    while cells(text) > room:
        fits = cut(text, room)
        end = len(fits) if text[len(fits)] == " " else fits.rfind(" ")
        line = text[:end] if end > 0 else fits
        lines.append(line.rstrip())
        text = text[len(line) :].lstrip()
    return [*lines, text]


def _spaced(text: str) -> str:
    """Returns the text, safe for a terminal, with the space that divides it from what precedes."""
    line = transcript_line(text)
    return f" {line}" if line and text[:1].isspace() else line
