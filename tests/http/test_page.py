"""The page as it is served; test_browser.py uses it."""

import json
import re

import pytest

from asrd.http.page import page
from asrd.wire.languages import NAMES
from tests.support.http import HttpProgram

HTML = bytes(page().body).decode()


def test_policy_allows_own_script_and_style_alone() -> None:
    headers = page().headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    for name in ("script-src", "style-src"):
        assert re.fullmatch(r"'sha256-[\w+/]{43}='", policy[name])
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert headers["permissions-policy"].startswith("microphone=(self), camera=()")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-type"] == "text/html; charset=utf-8"


def test_page_has_no_resources_and_no_markup_from_texts() -> None:
    assert not re.findall(r"https?:(?!//(?:www\.w3\.org/2000/svg|localhost))", HTML)
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", HTML)
    assert not re.findall(r"<[^>]*\s(?:on\w+|style)=", HTML)


def test_page_offers_the_languages_of_the_models() -> None:
    (listed,) = re.findall(r"const LANGUAGES = (.*);\n", HTML)
    found = json.loads(listed)
    assert found.keys() == NAMES.keys()
    assert (found["en"], found["ht"]) == ("English", "Haitian Creole")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_page_is_served(program: HttpProgram, method: str) -> None:
    found = program.get("/", method)
    assert found.status == 200 and "content-security-policy" in found.headers
    assert found.body == (HTML.encode() if method == "GET" else b"")


def test_page_can_only_be_read(program: HttpProgram) -> None:
    assert program.get("/", "POST").status == 405
