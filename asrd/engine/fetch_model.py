"""`asrd fetch-model`: the only part of asrd that goes to the network, and only when asked."""

import argparse

from asrd.errors import AsrdError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        help="a size (tiny, small, large-v3, large-v3-turbo …) or a Hugging Face repository",
    )


def fetch(args: argparse.Namespace) -> int:
    """Prints the directory of the model. Raises AsrdError."""
    try:
        from asrd.engine.models import fetch_model

        print(fetch_model(args.name))
    except ImportError as error:
        raise AsrdError(f"{error}: `pip install 'asrd[worker]'` brings what is needed") from None
    return 0
