"""asrctl(1), held against the program's own parser and exit codes."""

import argparse
import re
from collections.abc import Iterator

from asrd.asrctl.cli import build_parser
from asrd.exitcodes import Exit
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "man" / "asrctl.1"
TEXT = PAGE.read_text().replace("\\-", "-")


def parsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def test_every_command_has_its_paragraph() -> None:
    commands = TEXT.partition(".SH COMMANDS")[2].partition(".SH OPTIONS")[0]
    told = re.findall(r"^\.TP\n\.B (\w+)$", commands, re.M)
    assert told == [name for name, _ in parsers(build_parser())]


def test_every_option_is_told_and_no_other() -> None:
    top = build_parser()
    every = [top, *(parser for _, parser in parsers(top))]
    options = {
        option for parser in every for action in parser._actions for option in action.option_strings
    }
    body = TEXT.partition(".SH OPTIONS")[2].partition(".SH EXIT")[0]
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", body)) == options - {"-h", "--help"}


def test_every_exit_code_is_told() -> None:
    told = TEXT.partition(".SH EXIT STATUS")[2].partition("\n.PP")[0]
    assert [int(code) for code in re.findall(r"^\.B (\d+)$", told, re.M)] == sorted(Exit)
