"""The first code of each process that `asrd run` starts, before anything of asrd is imported.

Python would import from the working directory and from where its environment variables point, so
that an `orjson.py` in a download directory ran inside the daemon. The supervisor therefore starts
`python -E -P child.py MODULE ARGUMENT...` (see `program`), which ignores both. This file then takes
asrd from the directory that it lies in itself: the same asrd as the supervisor's, however that one
was found (a checkout, `pip install --user`, PYTHONPATH).
"""

import importlib
import importlib.util
import os
import sys

# The supervisor's import path, for what this interpreter lacks.
IMPORT_PATH = "ASRD_IMPORT_PATH"
# What the front needs, and the engine: by these one sees whether the interpreter has its packages.
_NEEDED = ("anyio", "orjson", "sdnotify", "av", "ctranslate2", "faster_whisper", "onnxruntime")


def _import_asrd() -> None:
    """Import the package from its own files, and nothing else from the directory above them."""
    directory = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    location = os.path.join(directory, "__init__.py")  # noqa: PTH118
    spec = importlib.util.spec_from_file_location(
        "asrd", location, submodule_search_locations=[directory]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{location} is not there")
    package = sys.modules["asrd"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


def _complete_path(entries: list[str]) -> None:
    """Append the supervisor's import path if this interpreter lacks a package.

    It comes last: it can add a module, and never replace one.
    """
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        sys.path += [entry for entry in entries if entry not in sys.path]


def _main() -> int:
    module, *arguments = sys.argv[1:]
    # Not the user's directory, which may be deleted or unmounted while we run.
    os.chdir("/")
    # sd_listen_fds(3): only this process knows its number before it runs.
    os.environ["LISTEN_PID"] = str(os.getpid())
    _complete_path(os.environ.pop(IMPORT_PATH, "").split(os.pathsep))
    _import_asrd()
    sys.argv = [module, *arguments]
    return int(importlib.import_module(module).main())


if __name__ == "__main__":
    sys.exit(_main())
