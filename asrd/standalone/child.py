"""The first code of each process that `asrd run` starts, before asrd is imported.

Python imports from the working directory and from places named by environment variables, so that
an `orjson.py` in a download directory would run inside the daemon. The supervisor therefore starts
`python -E -P child.py MODULE ARGUMENT...` (see `program`), which ignores both. This file then
imports asrd from its own directory, so that it is the supervisor's asrd however that was found (a
checkout, `pip install --user`, PYTHONPATH).
"""

import importlib
import importlib.util
import os
import sys

# The variable with the supervisor's import path, for packages that this interpreter lacks.
IMPORT_PATH = "ASRD_IMPORT_PATH"
# Packages of front and engine. If one is missing, the supervisor's import path is needed.
_NEEDED = ("anyio", "orjson", "sdnotify", "av", "ctranslate2", "faster_whisper", "onnxruntime")


def _import_asrd() -> None:
    """Imports the package from its own files, and nothing else from the directory above them."""
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
    """Appends the supervisor's import path if this interpreter lacks a package. At the end it can
    add a module, but never replace one."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        sys.path += [entry for entry in entries if entry not in sys.path]


def _main() -> int:
    module, *arguments = sys.argv[1:]
    # The user's directory may be deleted or unmounted while we run.
    os.chdir("/")
    # sd_listen_fds(3): only this process knows its number before it runs.
    os.environ["LISTEN_PID"] = str(os.getpid())
    _complete_path(os.environ.pop(IMPORT_PATH, "").split(os.pathsep))
    _import_asrd()
    sys.argv = [module, *arguments]
    return int(importlib.import_module(module).main())


if __name__ == "__main__":
    sys.exit(_main())
