"""`asrd add-model`: installs a model on a machine without a network.

The files come from a directory or an archive that `asrd fetch-model --to` has filled elsewhere, or
from any other model in CTranslate2's format. They are copied where the worker's user can read them
and `model = "NAME"` finds them, and are found there only when all of them are there and right.
"""

import argparse
import os
import re
from pathlib import Path

from asrd.engine.fetch_model import Request, explained, fetch_to, readable_by_workers
from asrd.engine.models import directories, is_name
from asrd.errors import AsrdError
from asrd.model_names import official
from asrd.model_table import MODELS
from asrd.stdio import say

# The bundled model, and directories of the Hugging Face cache in the same place.
_RESERVED = ("demo", "hub", "xet")
_ARCHIVE = re.compile(r"\.(tar|tar\.gz|tgz|zip)$")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "origin", metavar="DIR-OR-TAR", type=Path, help="what `asrd fetch-model --to` has made"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="the model's name in the settings; default: that of DIR"
    )


def add(args: argparse.Namespace) -> int:
    """Prints the directory of the model. Raises AsrdError."""
    print(add_model(args.origin, args.name))
    return 0


def add_model(origin: Path, name: str | None = None) -> Path:
    """Copies a model into $ASRD_MODELS (/var/lib/asrd/models), verifies it, and returns its
    directory, which appears when it is complete.

    An official model gets its official name, and must have the known hashes. Raises AsrdError.
    """
    given = name or _ARCHIVE.sub("", Path(os.path.abspath(origin)).name)  # noqa: PTH100
    known = official(given) if is_name(given) else None
    name = known or given
    if not is_name(name) or name in _RESERVED:
        raise AsrdError(
            f"{name!r} can't be a model's name: give another one with --name, of letters, digits, "
            "`.`, `_`, `+` and `-`"
        )
    target = directories()[0].absolute() / name
    if os.path.lexists(target):
        raise AsrdError(
            f"{target} exists already: `rm -r {target}` removes it, and --name gives the new model "
            "another name"
        )
    request = Request(name, f"local/{name}", MODELS.get(name), None)
    remedy = "use sudo, or set ASRD_MODELS to another directory"
    with readable_by_workers(), explained(name, target.parent, "added", remedy):
        fetch_to(request, target.parent, target, origin)
    say(f'asrd: workers find it as: model = "{name}"')
    return target
