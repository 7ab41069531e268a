"""The house rules: style, types, sizes, and which file may import which."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.sources import TREES, names

# Pure: testable without a clock, a socket or a file.
PURE_FOLDERS = {"front/scheduling", "wire"}
PURE_FILES = {"errors.py", "model_names.py", "model_table.py", "quota.py", "safe_text.py"}
PURE_FILES |= {"prometheus.py", "settings.py", "snapshot.py", "subtitles.py", "version.py"}
PURE_FILES |= {"front/live/agreement.py", "front/live/end_of_speech.py"}
# The files of `wire` that hold sockets and descriptors.
WITH_SOCKETS = {
    "wire/connection.py",
    "wire/fdsocket.py",
    "wire/fds.py",
    "wire/turn_word.py",
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
# The engine's libraries, known to one folder.
HEAVY = {
    "av",
    "ctranslate2",
    "faster_whisper",
    "huggingface_hub",
    "numpy",
    "onnxruntime",
    "tokenizers",
}
# Only the supervisor keeps processes; the doctor runs systemctl, and fetch-model pip.
SPAWNERS = {"standalone/supervisor.py", "engine/fetching/wheels.py"}
# They ask systemctl.
SPAWNERS |= {"asrctl/host.py", "asrctl/rolling.py"}
# The folders that the files of a folder may import, besides their own and the root.
MAY_IMPORT: dict[str, set[str]] = {
    "": {"client", "wire"},
    "wire": set(),
    "front": {"wire"},
    "engine": {"demo", "wire"},
    "worker": {"engine", "wire"},
    "client": {"wire"},
    "demo": set(),
    "asrctl": {"client", "demo", "engine", "wire"},
    "http": {"client", "wire"},
    "standalone": {"asrctl", "client", "demo", "engine", "wire", "worker"},
}
# `wire` is below the root.
WIRE_MAY_IMPORT = {"errors.py", "version.py"}
# A docstring starts with a noun phrase or a verb, so with none of these words.
NO_FIRST_WORDS = {"as", "how", "of", "that", "those", "what", "whatever", "when", "where"}
NO_FIRST_WORDS |= {"whether", "which", "who", "whoever", "why"}
# Words that a reader must decode (CONTRIBUTING.md).
PRIVATE_WORDS = re.compile(
    r"\b(shall|for ever|be had|hangs? on|mend(s|ed|ing)?|of no more use"
    r"|(is|are|be|was|were|been) told)\b",
    re.IGNORECASE,
)
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
    """The modules that a file imports: at its top, in functions, and only for types."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_imports(tree: ast.Module) -> Iterator[str]:
    """The modules that importing the file imports."""
    yield from imports(ast.Module([node for node in tree.body if is_import(node)], []))


def is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def own(names: Iterable[str]) -> set[str]:
    """The files of asrd among these modules."""
    paths = {name.replace(".", "/").removeprefix("asrd/") for name in names}
    files = {f"{path}.py" for path in paths} | {f"{path.rpartition('/')[0]}.py" for path in paths}
    return files & TREES.keys()


def roots(name: str) -> set[str]:
    return {imported.partition(".")[0] for imported in imports(TREES[name])}


def folder(name: str) -> str:
    """The first folder below asrd/, or nothing."""
    return name.partition("/")[0] if "/" in name else ""


def is_pure(name: str) -> bool:
    within = name.rpartition("/")[0] in PURE_FOLDERS
    return (within and name not in WITH_SOCKETS) or name in PURE_FILES


def reached(start: str) -> set[str]:
    """All files that importing one file imports, directly or not."""
    found, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += own(top_imports(TREES[name]))
    return found


# --- style and types ------------------------------------------------------------------------------


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", "--no-cache", ".")


def test_ruff_would_reformat_nothing() -> None:
    run("ruff", "format", "--check", "--no-cache", "asrd", "tests", "packaging")


def test_mypy_finds_nothing() -> None:
    run("mypy")


# --- language -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    """Every Python file; not kept longer, since each collection would visit them."""
    folders = (ROOT / name for name in ("asrd", "tests", "packaging"))
    paths = (path for folder in folders for path in folder.rglob("*.py"))
    return {path: ast.parse(path.read_text()) for path in paths}


def docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def test_docstrings_start_with_a_noun_or_a_verb(trees: dict[Path, ast.Module]) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for path, tree in trees.items()
        for text in docstrings(tree)
        if text and text.split()[0].strip(",:").lower() in NO_FIRST_WORDS
    ]
    assert not wrong


def test_text_has_no_private_words() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/man").iterdir()]
    code = [*(ROOT / "asrd").rglob("*.py"), *(ROOT / "systemd").iterdir()]
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    wrong = [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in (*pages, *code, *tests)
        for found in PRIVATE_WORDS.finditer(path.read_text())
    ]
    assert not wrong


# --- sizes ----------------------------------------------------------------------------------------


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {name: len((ROOT / "asrd" / name).read_text().splitlines()) for name in TREES}
    assert not {name: length for name, length in lengths.items() if length > 400}


def test_nine_functions_of_ten_have_at_most_25_lines() -> None:
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert lengths[len(lengths) * 9 // 10] <= 25


# --- layers ---------------------------------------------------------------------------------------


def test_a_folder_imports_only_folders_below_it() -> None:
    wrong = {
        (name, other)
        for name, tree in TREES.items()
        for other in own(imports(tree))
        if folder(other) not in MAY_IMPORT[folder(name)] | {folder(name), ""}
    }
    assert not wrong


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports for types only count: a reader follows them, too."""
    graph = {name: own(imports(tree)) - {name} for name, tree in TREES.items()}
    while free := {name for name, others in graph.items() if not others & graph.keys()}:
        graph = {name: others for name, others in graph.items() if name not in free}
    assert not graph


def test_the_wire_imports_nothing_but_errors_and_the_version() -> None:
    for name in TREES:
        if folder(name) == "wire":
            others = {other for other in own(imports(TREES[name])) if folder(other) != "wire"}
            assert others <= WIRE_MAY_IMPORT, name


def test_pure_files_import_no_way_to_the_world() -> None:
    for name in filter(is_pure, TREES):
        assert not roots(name) & IMPURE, name
        assert all(is_pure(other) for other in own(imports(TREES[name]))), name


def test_only_the_engine_folder_imports_the_engines_libraries() -> None:
    assert not {name for name in TREES if folder(name) != "engine" and roots(name) & HEAVY}


def test_front_client_and_tools_start_without_the_engines_libraries() -> None:
    """An import inside a function is allowed: only one command needs it."""
    starts = ["main.py", "front/server.py", "client/client.py", "client/asyncclient.py"]
    starts += ["asrctl/cli.py", "standalone/run.py", "worker/main.py"]
    for start in starts:
        for name in reached(start):
            found = {imported.partition(".")[0] for imported in top_imports(TREES[name])}
            assert not found & HEAVY, f"{start} imports {name}"


def test_tests_import_nothing_from_test_modules(trees: dict[Path, ast.Module]) -> None:
    wrong = {
        (path.name, name)
        for path, tree in trees.items()
        if path.is_relative_to(ROOT / "tests")
        for name in imports(tree)
        if name.startswith("tests.") and ".test_" in name
    }
    assert not wrong


def test_only_the_supervisor_spawns_processes() -> None:
    wrong = {name for name in TREES.keys() - SPAWNERS if (roots(name) | names(TREES[name])) & SPAWN}
    assert not wrong


def test_product_has_no_assert() -> None:
    """`python -O` removes them, and a peer must not be able to trigger one."""
    for name, tree in TREES.items():
        assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)], name


def test_directory_of_a_test_leaves_room_for_a_sockets_path(tmp_path: Path) -> None:
    """A path has at most 107 bytes (unix(7)); pytest and `asrd run` need most of them."""
    assert len(tmp_path.name) < 8
