"""The site of `make site`: no page is missing, and no link leads nowhere."""

import subprocess
import sys
from pathlib import Path

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
    assert 'href="tutorial.html"' in settings
    assert 'href="records/performance.html"' in settings
