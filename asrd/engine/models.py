"""The lookup of a model: from its name to its directory. Never uses the network."""

import difflib
import os
import re
import stat
from pathlib import Path
from typing import Any

from asrd.demo import MODEL
from asrd.engine.model_check import Facts, check, explain_file
from asrd.errors import LoadError
from asrd.model_names import official
from asrd.model_table import ALIASES, MODELS
from asrd.settings import WorkerSettings

# The repositories of the official names and their aliases. faster-whisper, which has the same list,
# is not imported for it: that takes long.
REPOSITORIES = {name: MODELS[name].repository for name in MODELS}
REPOSITORIES |= {alias: MODELS[name].repository for alias, name in ALIASES.items()}
_FILES = ["config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*"]
# Of packages (packaging/build-model-deb).
PACKAGED = Path("/usr/share/asrd/models")
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,63}", re.ASCII)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def directories() -> tuple[Path, Path]:
    """Returns the directories of models that are found by name: the admin's, and the packages'."""
    return Path(os.environ.get("ASRD_MODELS") or "/var/lib/asrd/models"), PACKAGED


def resolve(name: str) -> Path:
    """Returns a model's directory. `name` is `demo` (or empty), a directory, or a name: of a model
    in `directories()`, else a name, an alias or a repository in the local Hugging Face cache.
    Raises LoadError."""
    if name in ("", "demo"):
        return MODEL
    path = Path(name)
    try:
        mode = _mode(path)
        found = path if stat.S_ISDIR(mode) else added(name)
    except OSError as error:
        raise LoadError(f"the model {name!r} can't be read: {error.strerror}") from None
    if stat.S_ISREG(mode):
        raise explain_file(path)
    if found is not None:
        return found
    repository = repository_of(name)
    try:
        return _snapshot(repository)
    except ValueError as error:
        # The hub library's own rule for names.
        raise LoadError(f"there is no model {name!r}: {first_line(error)}") from None
    except OSError:
        raise LoadError(
            f"the model {name!r} is not on this machine; `asrd fetch-model {name}` fetches it, and "
            "without a network `asrd add-model DIR` adds a copy of it"
        ) from None


def added(name: str) -> Path | None:
    """Returns the directory of a model that was added by this name or its official one. Raises
    OSError."""
    names = dict.fromkeys((name, official(name) or name))
    places = (each / name for each in directories() for name in names if is_name(name))
    return next((each for each in places if stat.S_ISDIR(_mode(each))), None)


def _mode(path: Path) -> int:
    """Returns st_mode, 0 for what is not there. Path.is_dir would hide a refusal from Python 3.14
    on."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        # With a zero byte it is no path.
        return 0


def is_name(name: str) -> bool:
    """Returns True for the name of a directory that is neither hidden nor outside."""
    return _NAME.fullmatch(name) is not None


def short_name(model: str) -> str:
    """Returns the name by which a model is found if it has one, else the same text. Clients see
    it."""
    path = Path(model)
    try:
        # The second comparison is for a name that also means something else, such as `demo`.
        found = path.is_absolute() and added(path.name) == path == resolve(path.name)
    except (LoadError, OSError):
        found = False
    return path.name if found else model


def find(settings: WorkerSettings) -> tuple[Path, Facts]:
    """Returns the configured model's directory, and facts from its files. Raises LoadError."""
    path = resolve(settings.model)
    return path, check(path, alignment_heads=settings.check_model)


def repository_of(name: str) -> str:
    """Returns the hub's repository for a model's name or alias. Raises LoadError."""
    known = official(name)
    repository = name if known is None else MODELS[known].repository
    if _REPOSITORY.fullmatch(repository):
        return repository
    if name.startswith(("/", "~", "./", "../")):
        raise LoadError(f"there is no model {name!r}: no such directory")
    near = difflib.get_close_matches(name.lower(), ["demo", *REPOSITORIES], 3)
    guess = f"did you mean {' or '.join(near)}? Else " if near else ""
    raise LoadError(
        f"there is no model {name!r}: {guess}give a directory, `demo`, OWNER/NAME on the Hugging "
        f"Face hub, or one of {', '.join(REPOSITORIES)}"
    )


def import_hub() -> Any:
    """Imports huggingface_hub, which takes a while, and reads its settings only then."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub.constants
    import huggingface_hub.errors

    return huggingface_hub


def _snapshot(repository: str) -> Path:
    hub = import_hub()
    return Path(hub.snapshot_download(repository, allow_patterns=_FILES, local_files_only=True))


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
