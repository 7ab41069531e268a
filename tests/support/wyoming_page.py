"""The examples of docs/home-assistant.md."""

import re

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "home-assistant.md").read_text()


def block(language: str, text: str, page: str = PAGE) -> str:
    """The one example in this language that has this text."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)
    (example,) = (each for each in found if text in each)
    return str(example)


def commands(text: str) -> list[list[str]]:
    """The commands of an example in a shell, without sudo, as root runs them."""
    lines = block("sh", text).splitlines()
    return [line.split()[1:] for line in lines if line.split()[0] == "sudo"]
