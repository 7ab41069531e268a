"""The site: `make site` builds it with Sphinx from the same pages that are read as plain files."""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

# The parser of the manual pages.
sys.path.insert(0, str(Path(__file__).parent))

project = "asrd"
extensions = ["myst_parser", "manpages"]
html_theme = "furo"
html_title = "asrd"
myst_heading_anchors = 4
# Options stay as they are typed, with two hyphens.
smartquotes = False
# The pages' blocks of shell and protocol need no colours.
highlight_language = "text"

# Links out of this directory: the sources are not in the site.
_OUTSIDE = re.compile(r"\[([^][]+)\]\(\.\./([^)]+)\)")
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_PAGE = re.compile(r"\]\(([\w/.@-]+)\.(?:md|\d)\)")


def _prepare(app: Sphinx, page: str, source: list[str]) -> None:
    text = _OUTSIDE.sub(r"\1 (`\2` in the sources)", source[0])
    source[0] = text + _contents(text) if page == "index" else text


def _contents(text: str) -> str:
    """The list of all pages that Sphinx wants; it would disturb readers of the plain file."""
    _, *parts = _SECTION.split(text)
    trees = []
    for title, links in zip(parts[::2], parts[1::2], strict=True):
        pages = "\n".join(dict.fromkeys(_PAGE.findall(links)))
        trees.append(f"```{{toctree}}\n:caption: {title}\n:hidden:\n\n{pages}\n```\n")
    return "\n" + "\n".join(trees)


def setup(app: Sphinx) -> None:
    app.connect("source-read", _prepare)
