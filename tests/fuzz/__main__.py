"""Fuzzing of functions, guided by coverage, or of running daemons, by bursts of messages.

python -m tests.fuzz codec --seconds 60
python -m tests.fuzz codec --replay tests/fuzz/findings/codec-crash-...
python -m tests.fuzz front --seed 7 --executions 10000
python -m tests.fuzz front --seed 7 --burst 123
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import guided, structured
from tests.fuzz.front import FrontUnderFire
from tests.fuzz.link import LinkUnderFire
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import WorkerUnderFire

DAEMONS: dict[str, Callable[[Path], structured.Daemon]] = {
    "front": FrontUnderFire,
    "link": LinkUnderFire,
    "worker": WorkerUnderFire,
}


def main() -> int:
    args = _parser().parse_args()
    if args.target in DAEMONS:
        with (
            tempfile.TemporaryDirectory(prefix="fuzz-") as tmp,
            DAEMONS[args.target](Path(tmp)) as daemon,
        ):
            print(structured.fuzz(daemon, args.seed, args.seconds, args.executions, args.burst))
        return 0
    if args.replay is not None:
        TARGETS[args.target](args.replay.read_bytes())
        return 0
    corpus = args.corpus or guided.CORPUS / args.target
    run = guided.fuzz(args.target, args.seconds, args.executions, args.seed, corpus, args.keep)
    print(run)
    return 1 if run.finding else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", choices=[*TARGETS, *DAEMONS])
    parser.add_argument("--seconds", type=float, default=0, help="time limit; 0: none")
    parser.add_argument(
        "--executions", type=int, default=0, help="limit of executions, or of messages; 0: none"
    )
    parser.add_argument("--seed", type=int, default=1)
    functions = parser.add_argument_group("functions")
    functions.add_argument("--corpus", type=Path, help="default: tests/fuzz/corpus/TARGET")
    functions.add_argument("--keep", action="store_true", help="keep inputs that reach new code")
    functions.add_argument("--replay", type=Path, metavar="FILE", help="one input, without atheris")
    daemons = parser.add_argument_group("daemons")
    daemons.add_argument("--burst", type=int, help="run this burst alone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
