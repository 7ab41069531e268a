"""The choice of a model for a person's recording, and its download with consent."""

import importlib.util
import os
import sys

from asrd.engine.fetch_model import download_size, fetch_model
from asrd.engine.fetching.files import megabytes
from asrd.engine.model_check import check
from asrd.engine.models import import_hub, repository_of, resolve
from asrd.errors import AsrdError, ConfigError, LoadError
from asrd.stdio import say

# The best first: a turbo model makes a few more errors than large-v3 and takes a fraction of its
# time. A model for English alone writes English nonsense for any other language.
_BEST_FIRST = (
    *("large-v3-turbo", "large-v3", "large-v2", "large-v1", "medium", "small", "base", "tiny"),
    *("distil-large-v3.5", "distil-large-v3", "distil-large-v2", "medium.en", "distil-medium.en"),
    *("small.en", "distil-small.en", "base.en", "tiny.en"),
)
# The smallest that is useful, and fast on any CPU.
_FIRST = "base"


def best_model(yes: bool) -> str:
    """Returns the best model on this machine; if there is none, fetches one. Raises as
    `ensure_model` does."""
    _require_engine()
    found = next(filter(_is_here, _BEST_FIRST), None)
    if found is not None:
        return found
    _fetch(_FIRST, "there is no speech model on this machine yet", yes)
    return _FIRST


def ensure_model(name: str, yes: bool) -> None:
    """Fetches a model that is not on this machine, if the user agrees or `yes` is set.

    `name` is a directory, `demo`, or a model's name. Raises LoadError for a model that can't be
    fetched, ConfigError if nobody can be asked, AsrdError if the user says no or the download
    fails, KeyboardInterrupt.
    """
    _require_engine()
    try:
        # The worker checks the rest, by its settings.
        check(resolve(name), alignment_heads=False)
    except LoadError as error:
        # Not Path.exists: it raises for a name that is too long.
        if os.path.exists(name):  # noqa: PTH110
            raise
        repository_of(name)
        _fetch(name, str(error).partition(";")[0], yes)


def _require_engine() -> None:
    if importlib.util.find_spec("faster_whisper") is None:
        raise ConfigError("the engine is missing: `pip install 'asrd[worker]'` installs it")


def _is_here(name: str) -> bool:
    try:
        check(resolve(name))
    except LoadError:
        return False
    return True


def _fetch(name: str, problem: str, yes: bool) -> None:
    size = download_size(name)
    download = f" ({megabytes(size)})" if size else ""
    if not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise ConfigError(
                f"{problem}: `asrd fetch-model {name}` fetches it{download}, and so does --yes"
            )
        constants = import_hub().constants
        say(f"asrd: {problem}")
        question = (
            f"Fetch {name}{download} from {constants.ENDPOINT} into {constants.HF_HUB_CACHE}?"
        )
        if not _agrees(question):
            raise AsrdError("nothing was fetched; --model also takes the directory of a model")
    fetch_model(name)


def _agrees(question: str) -> bool:
    """Asks on the terminal; Return means yes, and the end of the input no."""
    sys.stderr.write(f"{question} [Y/n] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    return answer.endswith("\n") and answer.strip().lower() in ("", "y", "yes")
