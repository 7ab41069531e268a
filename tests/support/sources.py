"""The product's source text, for the tests that read it."""

import ast

from tests.support.paths import ROOT

# Each module's syntax tree, by its path below asrd/.
TREES = {
    path.relative_to(ROOT / "asrd").as_posix(): ast.parse(path.read_text())
    for path in sorted((ROOT / "asrd").rglob("*.py"))
}


def names(tree: ast.AST) -> set[str]:
    """Every name and attribute that is used."""
    return {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
    }
