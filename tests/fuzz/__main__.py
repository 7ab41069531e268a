"""Fuzzing by hand; what is found is kept in tests/fuzz/findings.

python -m tests.fuzz codec --seconds 60
python -m tests.fuzz codec --replay tests/fuzz/findings/codec-crash-...
"""

import argparse
import sys
from pathlib import Path

from tests.fuzz import guided
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", choices=[*TARGETS])
    parser.add_argument("--seconds", type=float, default=0, help="at most; 0: no limit")
    parser.add_argument("--executions", type=int, default=0, help="at most; 0: no limit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="default: tests/fuzz/corpus/TARGET")
    parser.add_argument("--keep", action="store_true", help="what new was reached, in the corpus")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="one input, without atheris")
    args = parser.parse_args()
    if args.replay is not None:
        TARGETS[args.target](args.replay.read_bytes())
        return 0
    corpus = args.corpus or guided.CORPUS / args.target
    run = guided.fuzz(args.target, args.seconds, args.executions, args.seed, corpus, args.keep)
    print(run)
    return 1 if run.finding else 0


if __name__ == "__main__":
    sys.exit(main())
