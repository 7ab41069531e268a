"""The house rules that a program can check: style, types, sizes, and who may import what."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "asrd").rglob("*.py"))
TREES = {
    path.relative_to(ROOT / "asrd").as_posix(): ast.parse(path.read_text()) for path in MODULES
}

# What can be tested without a clock, a socket or a file.
PURE = {
    "deadlines.py",
    "errors.py",
    "events.py",
    "fairqueue.py",
    "fastjson.py",
    "fields.py",
    "metrics.py",
    "request.py",
    "scheduler.py",
    "version.py",
    "wire.py",
}
IMPURE = {
    "anyio",
    "asyncio",
    "fcntl",
    "os",
    "pathlib",
    "random",
    "select",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
}
# The engine's libraries, and the modules of the worker that may know them.
HEAVY = {
    "av": {"audio.py"},
    "ctranslate2": {"engine.py", "cuda.py"},
    "faster_whisper": {"engine.py"},
    "huggingface_hub": {"models.py"},
    "numpy": {"audio.py", "engine.py", "vad.py", "windows.py"},
    "onnxruntime": {"engine.py", "vad.py"},
    "tokenizers": set(),
}
# The supervisor is the only one that keeps processes; the doctor asks systemctl.
SPAWNERS = {"supervisor.py", "host.py"}
SPAWN = {
    "subprocess",
    "multiprocessing",
    "fork",
    "forkpty",
    "posix_spawn",
    "posix_spawnp",
    "system",
    "popen",
    "open_process",
    "run_process",
    "create_subprocess_exec",
    "create_subprocess_shell",
}


def run(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that are imported when the code runs, wherever the statement stands."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node)


def own_imports(tree: ast.AST) -> set[str]:
    """The files of asrd among them."""
    names = {name.split(".")[1] for name in imports(tree) if name.startswith("asrd.")}
    return {f"{name}.py" for name in names if f"{name}.py" in TREES}


def names(tree: ast.AST) -> set[str]:
    """Every name and attribute that is used."""
    return {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
    }


# --- style and types ------------------------------------------------------------------------------


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", "--no-cache", ".")


def test_ruff_would_format_nothing_otherwise() -> None:
    run("ruff", "format", "--check", "--no-cache", "asrd", "tests", "packaging")


def test_the_types_are_right() -> None:
    run("mypy")


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TREES)
def test_a_file_can_be_read_in_one_sitting(name: str) -> None:
    assert len((ROOT / "asrd" / name).read_text().splitlines()) <= 400


def test_nine_functions_of_ten_fit_into_one_look() -> None:
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert lengths[len(lengths) * 9 // 10] <= 25


# --- layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_module_has_no_way_to_the_world(name: str) -> None:
    roots = {imported.split(".")[0] for imported in imports(TREES[name])}
    assert not roots & IMPURE
    assert own_imports(TREES[name]) <= PURE


@pytest.mark.parametrize("name", TREES)
def test_only_the_workers_modules_know_the_engines_libraries(name: str) -> None:
    roots = {imported.split(".")[0] for imported in imports(TREES[name])}
    for library, allowed in HEAVY.items():
        assert library not in roots or name in allowed, f"{name} imports {library}"


@pytest.mark.parametrize("start", ["main.py", "server.py", "client.py", "asyncclient.py", "cli.py"])
def test_front_and_client_reach_no_module_that_knows_them(start: str) -> None:
    """By what is imported at the top, step by step; what is imported late is that command's own."""
    reached, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            top = ast.Module([node for node in TREES[name].body if is_import(node)], [])
            waiting += own_imports(top)
    knowing = {module for allowed in HEAVY.values() for module in allowed}
    assert not reached & knowing


def is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


@pytest.mark.parametrize("name", sorted(TREES.keys() - SPAWNERS))
def test_only_the_supervisor_spawns_processes(name: str) -> None:
    roots = {imported.split(".")[0] for imported in imports(TREES[name])}
    assert not (roots | names(TREES[name])) & SPAWN


@pytest.mark.parametrize("name", TREES)
def test_no_assert_guards_anything(name: str) -> None:
    """`python -O` drops them, and a peer must not be able to trip one."""
    assert not [node.lineno for node in ast.walk(TREES[name]) if isinstance(node, ast.Assert)]
