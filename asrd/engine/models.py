"""From a model's name to its directory, in the local cache or brought there from the network."""

import difflib
import os
import re
import sys
from pathlib import Path
from typing import Any

from asrd.engine.model_check import Facts as Facts
from asrd.engine.model_check import check as check
from asrd.engine.model_check import explain_file
from asrd.errors import AsrdError, LoadError
from asrd.settings import WorkerSettings

# The names that faster-whisper gives to the models on the Hugging Face hub (a test compares them).
REPOSITORIES = {
    **{
        size: f"Systran/faster-whisper-{size}"
        for size in (
            *("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en"),
            *("large-v1", "large-v2", "large-v3"),
        )
    },
    "large": "Systran/faster-whisper-large-v3",
    "distil-small.en": "Systran/faster-distil-whisper-small.en",
    "distil-medium.en": "Systran/faster-distil-whisper-medium.en",
    "distil-large-v2": "Systran/faster-distil-whisper-large-v2",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
}
_FILES = [
    "config.json",
    "preprocessor_config.json",
    "model.bin",
    "tokenizer.json",
    "vocabulary.*",
]
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
# Longest wait for the hub's first answer, in seconds.
_HUB_PATIENCE = 10


def resolve(name: str) -> Path:
    """The directory of a model: `demo` (or empty), a directory, a name or repository id in the
    local Hugging Face cache. Never asks the network. Raises LoadError."""
    if name in ("", "demo"):
        from asrd.demo import MODEL

        return MODEL
    path = Path(name)
    try:
        if path.is_dir():
            return path
        if path.is_file():
            raise explain_file(path)
    except OSError as error:
        raise LoadError(f"the model {name!r} can't be read: {error.strerror}") from None
    repository = _repository(name)
    try:
        return _snapshot(repository, local_files_only=True)
    except ValueError as error:
        # The hub library's own rule for names.
        raise LoadError(f"there is no model {name!r}: {_first_line(error)}") from None
    except OSError:
        raise LoadError(
            f"the model {name!r} is not on this machine; `asrd fetch-model {name}` fetches it"
        ) from None


def find(settings: WorkerSettings) -> tuple[Path, Facts]:
    """The configured model's directory, and what its files say. Raises LoadError."""
    path = resolve(settings.model)
    return path, check(path, alignment_heads=settings.check_model)


def fetch_model(name: str) -> Path:
    """Bring a model from the Hugging Face hub into the local cache, and check its files.

    Shows the hub library's own progress bars on a terminal. Raises AsrdError in one sentence.
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    repository = _repository(name)
    hub = _hub()
    try:
        # Asked first, with a limit: the download itself waits for ever for a silent hub.
        hub.HfApi().model_info(repository, timeout=_HUB_PATIENCE)
        path = _snapshot(repository)
    except hub.errors.RepositoryNotFoundError:
        problem = f"the hub shows no repository {repository}"
    except Exception as error:  # each version of the library raises others
        problem = f"{hub.constants.ENDPOINT}: {_first_line(error)}"
    else:
        check(path)
        return path
    raise AsrdError(f"the model {name!r} could not be fetched: {problem}")


def _repository(name: str) -> str:
    repository = REPOSITORIES.get(name, name)
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


def _hub() -> Any:
    # Read when the library is imported, which takes a while: only those who need it wait for it.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub.constants
    import huggingface_hub.errors

    return huggingface_hub


def _snapshot(repository: str, local_files_only: bool = False) -> Path:
    found = _hub().snapshot_download(
        repository, allow_patterns=_FILES, local_files_only=local_files_only
    )
    return Path(found)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
