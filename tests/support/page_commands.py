"""The commands in the code blocks of a Markdown page."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from asrd import main
from asrd.asrctl.cli import build_parser
from asrd.asrctl.spelling import translated
from asrd.http.main import build_parser as http_parser

# A comment behind a command stands two cells away, or is the rest of a line of its own.
_COMMENT = re.compile(r"(^| )\s*# .*$")


def blocks(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields the language and the lines of each block, fenced or indented; the language of an
    indented one is empty."""
    language, block = None, list[str]()
    blank, indented = True, False
    for line in [*page.read_text().splitlines(), "end"]:
        fence = line.strip().startswith("```")
        if language is not None and not fence:
            block.append(line)
        elif fence or (indented and line.strip() and not line.startswith("    ")):
            if language is not None or indented:
                yield language or "", block
            opens = fence and language is None
            language, block, indented = line.strip()[3:] if opens else None, [], False
        elif (line.startswith("    ") and (blank or indented)) or indented:
            indented = True
            block.append(line)
        blank = not line.strip()


def commands(block: list[str]) -> list[str]:
    """Returns the commands of a block in a shell, without prompts, comments and output."""
    lines = [line for line in block if line.strip()]
    prompts = any(line.strip().startswith("$ ") for line in lines)
    text = "\n".join(lines)
    joined = [re.sub(r" *\\\n *", " ", text), text][not text.count("\\\n")].splitlines()
    found = []
    for line in map(str.strip, joined):
        if prompts and not line.startswith("$ "):
            continue
        command = _COMMENT.sub("", line.removeprefix("$ ")).strip()
        found += [command] * bool(command)
    return found


def paragraphs(block: list[str]) -> list[list[str]]:
    """Returns the parts between empty lines."""
    parts = [text.splitlines() for text in re.split(r"\n\s*\n", "\n".join(block))]
    return [part for part in parts if any(map(str.strip, part))]


def parse(command: str) -> None:
    """Gives the arguments of asrd's programs in a command to their parsers, which end this program
    for a wrong one."""
    for part in re.split(r" (?:\||&&|&)(?: |$)", command):
        words = [word for word in shlex.split(part) if word != "sudo" and "ASRD_DEBUG" not in word]
        match words:
            case ["asrctl", *arguments]:
                if arguments[0] == "transcribe":
                    arguments[1:], _ = translated(arguments[1:])
                build_parser().parse_args(arguments)
            case ["asrd", name, *arguments]:
                main._parser(name).parse_args([name, *arguments])
            case ["asrd-http", *arguments]:
                http_parser().parse_args(arguments)
