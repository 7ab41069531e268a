"""docs/troubleshooting.md: each message on it is one that the code writes, and each error code has
its row. The fixes that `asrctl doctor` prints are run by tests/systemd/test_doctor.py."""

import ast
import re
from functools import cache

import pytest

from asrd.errors import Code
from asrd.settings import FrontSettings, HttpSettings, WorkerSettings
from tests.support.page_commands import parse
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
ROWS = re.findall(r"^\| (.*?) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
# Python's way to show a letter that a terminal lacks.
NOT_OURS = {r"\u…"}
QUOTED = sorted({text for seen, *_ in ROWS for text in re.findall(r"`([^`]+)`", seen)} - NOT_OURS)
# A state and its reason, which come from variables.
_STATES = re.compile(r"worker 0 is (\w+): …")


@cache
def messages() -> str:
    """All texts of the code but docstrings, a line for each, with `…` for what is filled in."""
    found = []
    for file in sorted((ROOT / "asrd").rglob("*.py")):
        nodes = [*ast.walk(ast.parse(file.read_text()))]
        parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr | ast.Expr)
                 for part in ast.iter_child_nodes(node)}  # fmt: skip
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                found.append("".join(_text(value) for value in node.values))
            elif isinstance(node, ast.Constant) and id(node) not in parts:
                found.append(_text(node))
    return "\n".join(re.sub(r"%[.\d]*[sdfgr]", "…", text) for text in found)


def _text(node: ast.expr) -> str:
    if not isinstance(node, ast.Constant):
        return "…"
    return node.value if isinstance(node.value, str) else ""


@pytest.mark.parametrize("quoted", QUOTED)
def test_quoted_message_is_one_of_the_code(quoted: str) -> None:
    assert quoted in messages(), "changed, or never written so: correct the page"


def test_page_quotes_enough_to_be_searched() -> None:
    assert len(QUOTED) > 50
    assert "the queue is ful (… of … jobs wait)" not in messages()


def test_state_is_one_that_status_shows() -> None:
    (state,) = set(_STATES.findall(PAGE))
    assert f'"{state}"' in (ROOT / "asrd" / "front" / "scheduling" / "workers.py").read_text()


def test_every_error_code_has_its_row() -> None:
    codes = {code for _, cell, _ in ROWS for code in re.findall(r"`([a-z-]+)`", cell)}
    assert {str(code) for code in Code} <= codes


def test_settings_of_the_page_exist() -> None:
    known = {name for cls in (FrontSettings, WorkerSettings, HttpSettings)
             for name in cls.__dataclass_fields__}  # fmt: skip
    assert set(re.findall(r"`(?:\[\w+\] )?([a-z]+(?:_[a-z]+)+)(?: = [^`]+)?`", PAGE)) <= known


def test_fixes_are_commands_of_asrd() -> None:
    fixes = [
        fix for *_, cell in ROWS for fix in re.findall(r"`((?:sudo )?asr(?:d|ctl) .+?)`", cell)
    ]
    assert len(fixes) > 10
    for fix in fixes:
        parse(fix)
