"""Flags that the commands with front and workers of their own share."""

import argparse
import os
from collections.abc import Callable

from asrd.config import absolute
from asrd.engine.models import REPOSITORIES


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), help="default: the settings', else auto"
    )
    parser.add_argument("--compute-type", metavar="TYPE", help="int8, float16, int8_float16 …")
    parser.add_argument(
        "--threads", type=count(0, 4096), metavar="N", help="threads of an inference on the CPU"
    )


def count(least: int, most: int = 64) -> Callable[[str], int]:
    def count(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be between {least} and {most}")
        return number

    return count


def model(flag: str | None) -> str | None:
    """Returns the model for the workers, which run in another working directory: a name, or an
    absolute path. Raises ConfigError."""
    given = flag or os.environ.get("ASRD_WORKER_MODEL")
    if not given or given == "demo" or given in REPOSITORIES:
        return given
    # Not Path.exists: it raises for a name that is too long.
    is_path = given.startswith(("~/", "./", "../")) or os.path.exists(given)  # noqa: PTH110
    return absolute(given) if is_path else given
