"""The lookup of a model: from its name to its directory. Never uses the network."""

import difflib
import os
import re
from pathlib import Path
from typing import Any

from asrd.demo import MODEL
from asrd.engine.model_check import Facts, check, explain_file
from asrd.errors import LoadError
from asrd.settings import WorkerSettings

# faster-whisper's names for models on the Hugging Face hub (a test compares them). faster-whisper
# is not imported for them: it takes long.
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
_FILES = ["config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*"]
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def resolve(name: str) -> Path:
    """Returns a model's directory. `name` is `demo` (or empty), a directory, or a name or
    repository id in the local Hugging Face cache. Raises LoadError."""
    if name in ("", "demo"):
        return MODEL
    path = Path(name)
    try:
        if path.is_dir():
            return path
        if path.is_file():
            raise explain_file(path)
    except OSError as error:
        raise LoadError(f"the model {name!r} can't be read: {error.strerror}") from None
    repository = repository_of(name)
    try:
        return snapshot(repository, local_files_only=True)
    except ValueError as error:
        # The hub library's own rule for names.
        raise LoadError(f"there is no model {name!r}: {first_line(error)}") from None
    except OSError:
        raise LoadError(
            f"the model {name!r} is not on this machine; `asrd fetch-model {name}` fetches it"
        ) from None


def find(settings: WorkerSettings) -> tuple[Path, Facts]:
    """Returns the configured model's directory, and facts from its files. Raises LoadError."""
    path = resolve(settings.model)
    return path, check(path, alignment_heads=settings.check_model)


def repository_of(name: str) -> str:
    """Returns the hub's repository for a model's name. Raises LoadError."""
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


def import_hub() -> Any:
    """Imports huggingface_hub, which takes a while, and reads its settings only then."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub.constants
    import huggingface_hub.errors

    return huggingface_hub


def snapshot(repository: str, local_files_only: bool = False) -> Path:
    found = import_hub().snapshot_download(
        repository, allow_patterns=_FILES, local_files_only=local_files_only
    )
    return Path(found)


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
