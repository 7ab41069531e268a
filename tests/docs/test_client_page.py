"""docs/client.md, compared with the library."""

import ast
import re

import asrd
from asrd import AsyncClient, Client, errors
from asrd.wire.records import JobWarning
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "client.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


def test_examples_are_python_and_call_existing_methods() -> None:
    called = set()
    for block in BLOCKS:
        tree = compile(
            block, "client.md", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "client":
                called.add(node.attr)
    assert called == {"transcribe", "stream", "live"}
    assert hasattr(AsyncClient, "live")
    for name in called - {"live"} | set(re.findall(r"`(\w+)\(", PAGE)):
        assert hasattr(Client, name), name
        assert hasattr(AsyncClient, name), name


def test_table_names_every_error_of_a_call() -> None:
    named = set(re.findall(r"`([A-Z]\w+)`", PAGE.partition("| raised |")[2]))
    jobs = {cls.__name__ for cls in errors.JobError.__subclasses__()}
    assert named == jobs | {"ConnectionLost", "ProtocolError"}


def test_names_of_the_page_are_exported() -> None:
    assert set(re.findall(r"`asrd\.([A-Z]\w+)`", PAGE)) <= set(asrd.__all__)
    assert all(getattr(asrd, name) for name in asrd.__all__)
    assert set(re.findall(r"warning\.(\w+)", PAGE)) == set(JobWarning.__dataclass_fields__)
