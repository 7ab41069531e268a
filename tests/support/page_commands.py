"""The commands in the code blocks of a Markdown page."""

import re
from collections.abc import Iterator
from pathlib import Path

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
