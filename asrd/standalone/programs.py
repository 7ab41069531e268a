"""The command lines of the processes that `asrd run` starts."""

import os
import sys
from pathlib import Path

from asrd.standalone import child


def program(module: str, *arguments: str) -> list[str]:
    """Returns the command line that runs `main` of one of asrd's modules with this interpreter.

    With -E and -P nothing is imported from PYTHONPATH or the working directory; see
    asrd.standalone.child.
    """
    flags = ["-s"] * sys.flags.no_user_site + ["-S"] * sys.flags.no_site
    flags += ["-B"] * sys.flags.dont_write_bytecode
    flags += [f"-W{option}" for option in sys.warnoptions]
    script = str(Path(child.__file__).absolute())
    return [sys.executable, "-E", "-P", *flags, script, module, *arguments]


def import_path() -> str:
    """Returns our own import path for the children, without the working directory and relative
    entries. (asrd itself needs no entry.)"""
    absolute = (entry for entry in sys.path if entry.startswith("/"))
    return os.pathsep.join(entry for entry in absolute if not _is_here(entry))


def _is_here(entry: str) -> bool:
    try:
        return Path(entry).samefile(".")
    except OSError:
        return False
