"""The manual pages in the site: a Sphinx parser for the macros of man(7) that docs/man uses.

It writes reStructuredText, which Sphinx reads on. Raises ValueError for an unknown macro or escape,
so that no text is lost.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.parsers import RSTParser

_MAN = Path(__file__).parent / "man"
_FONTS = {"B": "B", "I": "I", "R": "R"}
_MARKS = {"B": "**", "I": "*", "R": ""}
_SPECIAL = re.compile(r"[\\*`_|<>]")
# A word in bold with a section in brackets behind it.
_REFERENCE = re.compile(r"\\ \*\*([\w.@-]+)\*\*\\ (?:\\ )?\((\d)\)")
# The starts of lines that mean a list or the like in reStructuredText.
_START = re.compile(r"[-+.:=#(\d]")


class ManParser(RSTParser):
    supported = ("man",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        super().parse(converted(inputstring), document)


def setup(app: Sphinx) -> None:
    for section in {path.suffix for path in _MAN.iterdir()}:
        app.add_source_suffix(section, "man")
    app.add_source_parser(ManParser)


def converted(page: str) -> str:
    """Returns a manual page as reStructuredText."""
    lines = [line for line in page.splitlines() if not line.startswith('.\\"')]
    return "\n".join(_Writer(iter(lines)).write()) + "\n"


class _Writer:
    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._found: list[str] = []
        self._text: list[list[str]] = [[]]
        self._margin, self._indent = 0, 0
        self._fresh_term = False

    def write(self) -> list[str]:
        for line in self._lines:
            if line.startswith("."):
                name, *arguments = _words(line[1:])
                self._macro(name, arguments)
            elif line:
                self._text[-1].append(_inline(line))
        self._end_paragraph()
        return self._found

    def _macro(self, name: str, arguments: list[str]) -> None:
        match name:
            case "TH":
                self._heading(f"{arguments[0].lower()}({arguments[1]})", "=")
            case "SH" | "SS":
                self._margin = 0
                text = " ".join(arguments)
                self._heading(text.capitalize() if name == "SH" else text, "-~"[name == "SS"])
            case "PP":
                self._end_paragraph()
                self._indent = self._margin
            case "TP" | "TQ":
                self._term(another=name == "TQ")
            case "RS":
                self._end_paragraph()
                self._margin += 4
                self._indent = self._margin
            case "RE":
                self._end_paragraph()
                self._margin -= 4
                self._indent = self._margin
            case "br":
                self._text.append([])
            case "nf" | "EX":
                self._literal("fi" if name == "nf" else "EE")
            case "SY":
                self._end_paragraph()
                self._text[-1].append(_font("B", arguments[0]))
            case "OP":
                value = f" {_font('I', arguments[1])}" if len(arguments) > 1 else ""
                self._text[-1].append(f"[{_font('B', arguments[0])}{value}]")
            case "YS":
                self._end_paragraph()
            case _:
                self._text[-1].append(_fonts(name, arguments))

    def _heading(self, text: str, line: str) -> None:
        self._end_paragraph()
        self._indent = 0
        title = _inline(text)
        self._found += ["", title, line * len(title)]

    def _term(self, another: bool) -> None:
        self._end_paragraph()
        line = next(self._lines)
        name, *arguments = _words(line[1:]) if line.startswith(".") else ["", line]
        term = _fonts(name, arguments) if name else _inline(line)
        self._indent = self._margin
        if another:
            self._found[-1] += f", {term}"
        else:
            self._found += ["", " " * self._indent + _safe(term)]
        self._indent = self._margin + 4
        self._fresh_term = True

    def _literal(self, end: str) -> None:
        self._end_paragraph()
        text = []
        for line in self._lines:
            if line == f".{end}":
                break
            if not line.startswith("."):
                text.append(_plain(re.sub(r"\\f[BIRP]", "", line)))
        if self._fresh_term:
            raise ValueError("a literal block has no text before it")
        space = " " * self._indent
        self._found += ["", f"{space}::", "", *(f"{space}    {line}" for line in text)]

    def _end_paragraph(self) -> None:
        """Writes the text so far; one with breaks is a block of lines."""
        parts = [" ".join(part) for part in self._text if part]
        self._text = [[]]
        if not parts:
            return
        space = " " * self._indent
        if not self._fresh_term:
            self._found.append("")
        self._fresh_term = False
        if len(parts) == 1:
            self._found.append(space + _safe(_linked(parts[0])))
        else:
            self._found += [f"{space}| {_linked(part)}" for part in parts]


def _words(line: str) -> list[str]:
    """The words of a macro; `""` in a quoted one is a quotation mark."""
    lexer = shlex.shlex(line.replace('""', "\x01"), posix=True)
    lexer.whitespace_split, lexer.commenters, lexer.escape, lexer.quotes = True, "", "", '"'
    return [word.replace("\x01", '"') if word != "\x01" else "" for word in lexer]


def _fonts(name: str, arguments: list[str]) -> str:
    """The text of .B, .BR and the like: one font for all words, or two in turns."""
    if not name or not set(name) <= set(_FONTS) or len(name) > 2:
        raise ValueError(f".{name} is not known here")
    if len(name) == 1:
        return _font(name, " ".join(arguments))
    return "".join(_font(name[number % 2], text) for number, text in enumerate(arguments))


def _font(font: str, text: str) -> str:
    """A text that begins in a font, and may change it."""
    found, now = [], font
    for part in re.split(r"(\\f[BIRP])", text):
        if part.startswith("\\f"):
            now = font if part[2] == "P" else part[2]
        elif part:
            found.append(_marked(now, _plain(part)))
    return "".join(found)


def _marked(font: str, text: str) -> str:
    inner, mark = text.strip(" "), _MARKS[font]
    safe = _SPECIAL.sub(r"\\\g<0>", inner)
    if not inner or not mark:
        return _SPECIAL.sub(r"\\\g<0>", text)
    before, after = text[: len(text) - len(text.lstrip(" "))], text[len(text.rstrip(" ")) :]
    return rf"{before}\ {mark}{safe}{mark}\ {after}"


def _inline(text: str) -> str:
    return _font("R", text)


def _plain(text: str) -> str:
    found = text.replace("\\-", "-").replace("\\&", "").replace("\\(dq", '"')
    if left := re.search(r"\\[^e]", found):
        raise ValueError(f"{left[0]} is not known here")
    return found.replace("\\e", "\\")


def _safe(line: str) -> str:
    return rf"\ {line}" if _START.match(line) else line


def _linked(text: str) -> str:
    def link(match: re.Match[str]) -> str:
        name, section = match[1], match[2]
        there = (_MAN / f"{name}.{section}").exists()
        return rf"\ :doc:`{name}({section}) <{name}>`" if there else match[0]

    return _REFERENCE.sub(link, text)
