"""The site of `make site`: no page is missing, and no link leads nowhere."""

import importlib
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from tests.support.paths import ROOT

DOCS = ROOT / "docs"


def test_site_has_every_page_and_no_broken_link(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"]
    argv += ["-d", str(tmp_path / "doctrees"), str(DOCS), str(tmp_path / "site")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for page in DOCS.rglob("*.md"):
        built = tmp_path / "site" / page.relative_to(DOCS).with_suffix(".html")
        assert built.exists(), page
    # The contents stand beside every page.
    settings = (tmp_path / "site" / "settings.html").read_text()
    for name in ("tutorial", "records/performance", "man/asrd.toml", "man/asr-worker%40"):
        assert f'href="{name}.html"' in settings
    for page in (DOCS / "man").iterdir():
        html = (tmp_path / "site" / "man" / page.name).with_suffix(".html").read_text()
        shown = re.sub(r"<[^>]*>", "", html).replace("\n", " ")
        # Each word of the page, whatever its font.
        missing = {word for word in words(page.read_text()) if word not in unescape(shown)}
        assert not missing, page
    asrctl = (tmp_path / "site" / "man" / "asrctl.html").read_text()
    assert '<section id="options">' in asrctl
    assert 'href="asrd-protocol.html"' in asrctl


def words(page: str) -> set[str]:
    """Words of letters and hyphens in a manual page, without macros and fonts."""
    lines = [line for line in page.splitlines() if not line.startswith((".TH", ".SH", '.\\"'))]
    text = re.sub(r"^\.[A-Za-z]+|\\f[BIRP]|\\&|\"", " ", "\n".join(lines), flags=re.MULTILINE)
    return set(re.findall(r"[A-Za-z-]{2,}", text.replace("\\-", "-").replace("\\(dq", " ")))


def test_macro_that_the_site_does_not_know_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than lost text."""
    monkeypatch.syspath_prepend(str(DOCS))
    converted = importlib.import_module("manpages").converted
    assert converted(".TH A 1\n.SH NAME\n.BR a (1) b\n").endswith("\n\\ **a**\\ (1)\\ **b**\\ \n")
    for wrong in (".XY b", "a \\*b", ".BIB a"):
        with pytest.raises(ValueError, match="not known here"):
            converted(f".TH A 1\n.SH NAME\n{wrong}\n")
