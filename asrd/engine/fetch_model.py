"""`asrd fetch-model`: the only part of asrd that uses the network, and only on request."""

import argparse
import os
import sys
from pathlib import Path

from asrd.engine.model_check import check
from asrd.engine.models import first_line, import_hub, repository_of, snapshot
from asrd.errors import AsrdError

# The longest wait for the hub's first answer, in seconds.
_HUB_PATIENCE = 10
# Bytes to download.
_SIZES = {"tiny.en": 78_090_594, "base": 147_882_941}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        help="a size (tiny, small, large-v3, large-v3-turbo …) or a Hugging Face repository",
    )


def fetch(args: argparse.Namespace) -> int:
    """Prints the directory of the model. Raises AsrdError."""
    try:
        print(fetch_model(args.name))
    except ImportError as error:
        raise AsrdError(f"{error}: `pip install 'asrd[worker]'` installs what is needed") from None
    return 0


def download_size(name: str) -> int | None:
    """Returns the bytes that a model takes, None if they are not known."""
    return _SIZES.get(name)


def fetch_model(name: str) -> Path:
    """Downloads a model from the Hugging Face hub into the local cache, and checks its files.

    Shows the hub library's own progress bars on a terminal. Raises AsrdError in one sentence.
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    repository = repository_of(name)
    hub = import_hub()
    try:
        # A question with a time limit first: the download waits without limit for a silent hub.
        hub.HfApi().model_info(repository, timeout=_HUB_PATIENCE)
        path = snapshot(repository)
    except hub.errors.RepositoryNotFoundError:
        problem = f"the hub has no repository {repository}"
    except Exception as error:  # each version of the library raises others
        problem = f"{hub.constants.ENDPOINT}: {first_line(error)}"
    else:
        check(path)
        return path
    raise AsrdError(f"the model {name!r} could not be fetched: {problem}")
