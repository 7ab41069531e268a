"""The rules for names of models: the official names, their aliases, and names of directories. Pure.

The same rules find the model of a request among those that workers have loaded, and the repository
of a model to fetch. Upper and lower case are the same everywhere.
"""

import functools
import re
from enum import IntEnum

from asrd.model_table import ALIASES, MODELS

# The bundled model, of workers without a configured one.
DEMO = "demo"
# `faster-whisper-base`, `whisper-base`, `faster-distil-whisper-large-v3`, `distil-large-v3.5-ct2`.
_DECORATED = re.compile(r"(?:faster-)?(distil-)?(?:whisper-)?(.+?)(?:-ct2)?")
_REPOSITORIES = {model.repository.casefold(): name for name, model in MODELS.items()}


class Match(IntEnum):
    """The ways in which a requested name fits a model; the smallest is the best."""

    EXACT = 0
    PART = 1


@functools.lru_cache(maxsize=1024)
def official(name: str) -> str | None:
    """Returns the official name for a name, an alias, a repository or a decorated name
    (`faster-whisper-base`); None for every other name, such as a path or another repository."""
    folded = name.casefold()
    if "/" in folded:
        return _REPOSITORIES.get(folded)
    plain = _DECORATED.fullmatch(folded)
    candidates = [folded] if plain is None else [folded, (plain[1] or "") + plain[2]]
    for candidate in candidates:
        found = ALIASES.get(candidate, candidate)
        if found in MODELS:
            return found
    return None


def match(model: str, requested: str) -> Match | None:
    """Returns the way in which `requested` names `model`, None if it does not.

    `model` is a name, a repository or a directory. All names of an official model are equal. The
    last part of a directory or repository counts as its name, too: `base` and
    `faster-whisper-base` both name `/srv/models/base`.
    """
    if identity(model) == identity(requested):
        return Match.EXACT
    wanted, full = requested.rstrip("/").casefold(), model.rstrip("/").casefold()
    last = full.rpartition("/")[2]
    same = official(wanted)
    if wanted in (full, last) or (same is not None and same == official(last)):
        return Match.PART
    return None


def identity(model: str) -> str:
    """Returns a text that is the same for two names of one model."""
    return official(model) or model
