"""`asrctl top`: workers and jobs on a whole terminal, with keys to end jobs."""

import argparse
import contextlib
import curses
import locale
import os
import sys
import time
from enum import Enum, auto

from asrd.asrctl.asking import ask
from asrd.asrctl.cells import cut, ljust
from asrd.asrctl.progress import can_redraw
from asrd.asrctl.streams import complain
from asrd.asrctl.table import crash_lines, head, job_table, totals, worker_table
from asrd.client.client import Client
from asrd.errors import AsrdError
from asrd.exitcodes import Exit
from asrd.safe_text import one_line
from asrd.snapshot import Snapshot, read_snapshot

_KEYS = "up, down: choose a job   c: cancel it   q: quit"


class Style(Enum):
    PLAIN = auto()
    TITLE = auto()
    DIM = auto()
    BAD = auto()
    CHOSEN = auto()


# A line of the screen.
Line = tuple[str, Style]


class View:
    """The lines of the screen, and the meaning of keys. No I/O."""

    def __init__(self) -> None:
        self.ended = False
        # The job that the user wants to end, once that is confirmed.
        self.cancelled: str | None = None
        self._snapshot: Snapshot | None = None
        self._note, self._noted = "", False
        self._chosen = 0
        self._asked: str | None = None

    def update(self, snapshot: Snapshot) -> None:
        """Shows a newer state; the chosen job stays chosen, at any place. A note stays for one."""
        before = self._job_id()
        self._snapshot = snapshot
        self._note, self._noted = self._note if self._noted else "", False
        ids = [job.job_id for job in snapshot.job_list]
        if before in ids:
            self._chosen = ids.index(before)
        self._chosen = max(0, min(self._chosen, len(ids) - 1))

    def tell(self, note: str) -> None:
        self._note, self._noted = one_line(note), True

    def press(self, key: str) -> None:
        """`key` is a character, or the name that curses has for it (KEY_UP)."""
        if self._asked is not None:
            self.cancelled = self._asked if key in "yY" else None
            self._asked = None
        elif key in ("q", "Q"):
            self.ended = True
        elif key in ("c", "C", "KEY_DC"):
            self._asked = self._job_id()
        elif key in ("KEY_UP", "k"):
            self._chosen = max(0, self._chosen - 1)
        elif key in ("KEY_DOWN", "j"):
            self._chosen = min(self._chosen + 1, max(0, len(self._jobs()) - 1))

    def lines(self, rows: int, columns: int) -> list[Line]:
        """Returns at most `rows` lines of at most `columns` cells; the last one says what keys do.
        Where not all jobs fit, those around the chosen one are shown."""
        above, below = self._above(), self._below()
        room = max(1, rows - len(above) - len(below) - 1)
        lines = (above + self._job_lines(room) + below)[: rows - 1]
        lines += [("", Style.PLAIN)] * (rows - 1 - len(lines))
        return [(cut(text, columns), style) for text, style in [*lines, self._last()]][-rows:]

    def _jobs(self) -> tuple[str, ...]:
        return () if self._snapshot is None else tuple(j.job_id for j in self._snapshot.job_list)

    def _job_id(self) -> str | None:
        jobs = self._jobs()
        return jobs[self._chosen] if jobs else None

    def _above(self) -> list[Line]:
        snapshot = self._snapshot
        if snapshot is None:
            return []
        title, *problems = head(snapshot)
        columns, *workers = worker_table(snapshot)
        good = {"ready", "busy", "asleep"}
        styles = [Style.PLAIN if w.state in good else Style.BAD for w in snapshot.workers]
        return [
            (title, Style.TITLE),
            *((problem, Style.BAD) for problem in problems),
            *((line, Style.PLAIN) for line in totals(snapshot)),
            ("", Style.PLAIN),
            (columns, Style.DIM),
            *zip(workers, styles, strict=True),
            ("", Style.PLAIN),
        ]

    def _job_lines(self, room: int) -> list[Line]:
        if self._snapshot is None:
            return []
        columns, *jobs = job_table(self._snapshot.job_list)
        lines = [(job, Style.PLAIN) for job in jobs]
        if lines:
            lines[self._chosen] = (ljust(jobs[self._chosen], 200), Style.CHOSEN)
        first = max(0, min(self._chosen - (room - 1) // 2, len(lines) - (room - 1)))
        return [(columns, Style.DIM), *lines[first : first + room - 1]]

    def _below(self) -> list[Line]:
        snapshot = self._snapshot
        crashes = snapshot.crashes[-3:] if snapshot is not None and snapshot.crashes else ()
        lines = [(line, Style.DIM) for line in crash_lines(crashes)]
        return [("", Style.PLAIN), *lines] if lines else []

    def _last(self) -> Line:
        if self._asked is not None:
            return one_line(f"cancel {self._asked}? y/n"), Style.BAD
        return (self._note, Style.BAD) if self._note else (_KEYS, Style.DIM)


def run(args: argparse.Namespace) -> int:
    """Runs until q or Ctrl-C."""
    if not (can_redraw(sys.stdout) and sys.stdin.isatty()):
        complain("top needs a terminal; `asrctl watch` and `asrctl status --jobs` do not")
        return Exit.USAGE
    locale.setlocale(locale.LC_ALL, "")
    with contextlib.suppress(KeyboardInterrupt):
        curses.wrapper(_show, args.socket, args.interval)
    return Exit.OK


def _show(window: "curses.window", socket: str | None, interval: float) -> None:
    attributes, view, asked_at = _attributes(), View(), float("-inf")
    while not view.ended:
        if time.monotonic() - asked_at >= interval:
            asked_at = time.monotonic()
            _refresh(view, socket)
        _draw(window, view, attributes)
        window.timeout(max(1, int(1000 * (asked_at + interval - time.monotonic()))))
        with contextlib.suppress(curses.error):
            view.press(window.getkey())
        if view.cancelled is not None:
            _cancel(view, socket, view.cancelled)
            view.cancelled = None


def _refresh(view: View, socket: str | None) -> None:
    try:
        data = ask(socket, lambda client: client.status(crashes=True, jobs=True))
        view.update(read_snapshot(data))
    except AsrdError as error:
        view.tell(f"unreachable: {error}")


def _cancel(view: View, socket: str | None, job_id: str) -> None:
    try:
        with Client(socket) as client:
            count = client.cancel(job_id)
        view.tell(f"cancelled {job_id}" if count else f"{job_id} has ended already")
    except AsrdError as error:
        view.tell(f"not cancelled: {error}")


def _attributes() -> dict[Style, int]:
    """The terminal's attributes of each style; without colours under NO_COLOR."""
    with contextlib.suppress(curses.error):
        curses.curs_set(0)
    bad = curses.A_BOLD
    if not os.environ.get("NO_COLOR"):
        with contextlib.suppress(curses.error):
            curses.start_color()
            curses.use_default_colors()
            curses.init_pair(1, curses.COLOR_RED, -1)
            bad = curses.color_pair(1)
    return {
        Style.PLAIN: curses.A_NORMAL,
        Style.TITLE: curses.A_BOLD,
        Style.DIM: curses.A_DIM,
        Style.BAD: bad,
        Style.CHOSEN: curses.A_REVERSE,
    }


def _draw(window: "curses.window", view: View, attributes: dict[Style, int]) -> None:
    rows, columns = window.getmaxyx()
    window.erase()
    # The last cell of a terminal can't be written without scrolling it.
    for row, (text, style) in enumerate(view.lines(rows, columns - 1)):
        with contextlib.suppress(curses.error):
            window.addstr(row, 0, text, attributes[style])
    window.refresh()
