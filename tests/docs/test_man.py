"""The manual pages, compared with asrctl's parser."""

import argparse
import re

from asrd.asrctl.cli import build_parser
from asrd.http.main import build_parser as http_parser
from tests.support.paths import ROOT

PAGES = ROOT / "docs" / "man"
ASRCTL = (PAGES / "asrctl.1").read_text().replace("\\-", "-")


def commands() -> dict[str, argparse.ArgumentParser]:
    actions = build_parser()._actions
    (found,) = (action for action in actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def test_the_pages_are_there() -> None:
    names = {path.name for path in PAGES.iterdir()}
    daemons = {"asrd.8", "asrd-http.8", "asr-worker@.8"}
    assert names == {"asrctl.1", "asrd.toml.5", "asrd-protocol.7", *daemons}


def test_every_command_of_asrctl_has_its_paragraph() -> None:
    section = ASRCTL.partition(".SH COMMANDS")[2].partition(".SH OPTIONS")[0]
    found = re.findall(r"^\.TP\n\.B ([\w\\-]+)$", section, re.M)
    assert [name.replace("\\-", "-") for name in found] == [*commands()]


def test_page_of_asrctl_explains_every_option_and_no_other() -> None:
    parsers = [build_parser(), *commands().values()]
    actions = [action for parser in parsers for action in parser._actions]
    options = {option for action in actions for option in action.option_strings}
    section = ASRCTL.partition(".SH OPTIONS")[2].partition(".SH EXIT")[0]
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", section)) == options - {"-h", "--help"}


def test_page_of_asrd_http_explains_every_option() -> None:
    page = (PAGES / "asrd-http.8").read_text().replace("\\-", "-")
    options = {option for action in http_parser()._actions for option in action.option_strings}
    section = page.partition(".SH OPTIONS")[2].partition(".SH")[0]
    assert set(re.findall(r"(?<![\w-])--[a-z]+", section)) == options - {"-h", "--help"}


def test_documentation_is_named_as_the_package_has_it() -> None:
    """Debian's packages have pages of more than 4 KiB compressed."""
    named = 0
    for page in PAGES.iterdir():
        text = page.read_text().replace("\\-", "-")
        for name, ending in re.findall(r"/usr/share/doc/asrd/([\w-]+\.md)(\.gz)?", text):
            large = (ROOT / "docs" / name).stat().st_size > 4096
            assert (ending == ".gz") == large, f"{page.name}: {name}"
            named += 1
    assert named >= 4
