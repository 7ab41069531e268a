"""The shells' completions of asrctl, made from its parser by shtab; `make docs` writes them."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import shtab

from asrd.asrctl.cli import build_parser
from asrd.formats import FORMATS
from asrd.wire.languages import NAMES
from tests.support.paths import ROOT

DIRECTORY = ROOT / "asrd" / "asrctl" / "completions"
# By the names that `asrctl completion` takes.
SHELLS = ("bash", "zsh", "fish")
# What an option's metavar stands for.
_COMPLETE = {"FILE": shtab.FILE, "PATH": shtab.FILE, "DIR": shtab.DIRECTORY}
_CHOICES = {"--format": tuple(FORMATS), "--language": tuple(NAMES)}


def completions() -> dict[Path, str]:
    """The text of each file."""
    parser = build_parser()
    for command in (parser, *commands(parser).values()):
        for action in command._actions:
            if (complete := _COMPLETE.get(str(action.metavar))) is not None:
                action.complete = complete  # type: ignore[attr-defined]
            for option in action.option_strings:
                action.choices = _CHOICES.get(option, action.choices)
    return {DIRECTORY / f"asrctl.{shell}": _made(parser, shell) for shell in SHELLS}


def _made(parser: argparse.ArgumentParser, shell: str) -> str:
    text: str = shtab.complete(parser, shell=shell)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (found,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(found.choices)


def options() -> Iterator[tuple[str, str]]:
    """Each command with each of its options."""
    for name, command in commands(build_parser()).items():
        for action in command._actions:
            for option in action.option_strings:
                yield name, option
