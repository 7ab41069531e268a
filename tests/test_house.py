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
    "errors.py",
    "wire/client_events.py",
    "wire/event_table.py",
    "wire/strict_json.py",
    "wire/fields.py",
    "front/scheduling/actions.py",
    "front/reporting/crashes.py",
    "front/scheduling/deadlines.py",
    "front/scheduling/fairqueue.py",
    "front/reporting/metrics.py",
    "front/scheduling/needs.py",
    "front/request.py",
    "front/scheduling/retry_after.py",
    "front/scheduling/scheduler.py",
    "front/scheduling/workers.py",
    "wire/peer.py",
    "wire/languages.py",
    "plaintext.py",
    "wire/records.py",
    "version.py",
    "worker/hints.py",
    "wire/worker_events.py",
    "wire/frames.py",
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
    "av": {
        "worker/containers.py",
        "worker/converter.py",
        "worker/pcm.py",
        "worker/section.py",
        "worker/tracks.py",
    },
    "ctranslate2": {"worker/engine.py"},
    "faster_whisper": {"worker/engine.py"},
    "huggingface_hub": {"worker/models.py"},
    "numpy": {
        "worker/ahead.py",
        "worker/converter.py",
        "worker/engine.py",
        "worker/media.py",
        "worker/pcm.py",
        "worker/recording.py",
        "worker/samples.py",
        "worker/spectrum.py",
        "worker/vad.py",
        "worker/windows.py",
    },
    "onnxruntime": {"worker/engine.py", "worker/vad.py"},
    "tokenizers": set(),
}
# The supervisor is the only one that keeps processes; the doctor asks systemctl.
SPAWNERS = {"standalone/supervisor.py", "asrctl/host.py"}
# What may import what: a module its own package, the modules that stand outside of packages, and
# these packages.
MAY_IMPORT = {
    "wire": set(),
    "front": {"wire"},
    "worker": {"wire"},
    "client": {"wire"},
    "asrctl": {"client", "wire", "worker"},
    "standalone": {"asrctl", "client", "demo", "wire", "worker"},
}
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
    paths = {name.replace(".", "/")[len("asrd/") :] for name in imports(tree)}
    files = {f"{path}.py" for path in paths} | {f"{path.rpartition('/')[0]}.py" for path in paths}
    return files & TREES.keys()


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


@pytest.mark.parametrize("name", [name for name in sorted(TREES) if "/" in name])
def test_a_package_imports_only_what_is_below_it(name: str) -> None:
    package = name.partition("/")[0]
    others = {found.partition("/")[0] for found in own_imports(TREES[name]) if "/" in found}
    assert others - {package} <= MAY_IMPORT.get(package, set())


@pytest.mark.parametrize(
    "start",
    [
        "main.py",
        "front/server.py",
        "client/client.py",
        "client/asyncclient.py",
        "asrctl/cli.py",
    ],
)
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


def test_a_tests_directory_leaves_room_for_a_sockets_path(tmp_path: Path) -> None:
    """107 bytes in all (unix(7)); pytest's own directories and `asrd run`'s take most of them."""
    assert len(tmp_path.name) < 8
