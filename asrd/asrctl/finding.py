"""The findings of `asrctl doctor`."""

from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from shlex import quote


class Verdict(Enum):
    OK = "ok"
    WRONG = "wrong"
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class Finding:
    """`fix` is one command line that fixes it, and `see` one that shows more; None if there is no
    such command."""

    verdict: Verdict
    text: str
    fix: str | None = None
    see: str | None = None


ok = partial(Finding, Verdict.OK)
wrong = partial(Finding, Verdict.WRONG)
unseen = partial(Finding, Verdict.UNSEEN)


def edit(file: Path) -> str:
    """Returns the command that edits a settings file."""
    return f"sudoedit {quote(str(file))}"
