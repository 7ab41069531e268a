"""The manual pages, held against the code that they describe."""

import dataclasses
import json
import re

import pytest

from asrd.errors import Code
from asrd.settings import TABLES
from tests.support.paths import ROOT

PAGES = sorted((ROOT / "docs" / "man").iterdir())


def plain(name: str) -> str:
    """A page's words: the requests and escapes of roff taken out."""
    (page,) = (path for path in PAGES if path.name == name)
    text = page.read_text().replace("\\-", "-").replace('""', '"')
    return " ".join(re.sub(r"^\.\w+ ?", "", text, flags=re.MULTILINE).split())


def test_the_five_pages_are_there() -> None:
    names = {path.name for path in PAGES}
    assert names == {"asrctl.1", "asrd.toml.5", "asrd-protocol.7", "asrd.8", "asr-worker@.8"}


@pytest.mark.parametrize("table", TABLES)
def test_every_setting_stands_in_its_page_with_default_and_help(table: str) -> None:
    page = plain("asrd.toml.5")
    for spec in dataclasses.fields(TABLES[table]):
        words = f'{spec.name} " = {json.dumps(spec.default)}" {spec.metadata["help"]}'
        assert words.replace("…", "...") in page


def test_every_error_code_stands_in_the_protocol_page() -> None:
    page = plain("asrd-protocol.7")
    for code in Code:
        sentence = re.search(rf" {code} [A-Z][^.]*\.( Retryable\.)?", page)
        assert sentence is not None, code
        assert bool(sentence[1]) == code.retryable, code
