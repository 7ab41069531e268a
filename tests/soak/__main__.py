"""The fault campaigns: `python -m tests.soak --seed N --seconds S [--clients C]`."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.soak.liars import Liars
from tests.soak.report import render
from tests.soak.standalone import Standalone

# Of the whole time, for the workers that lie.
_LIARS_SHARE = 0.2


def campaign(tmp: Path, seed: int, seconds: float, clients: int) -> list[str]:
    """Runs both one after the other and prints their tables; returns the broken promises."""
    failures: list[str] = []
    liars, standalone = Liars(tmp, seed, clients), Standalone(tmp, seed, clients)
    shares: list[tuple[Liars | Standalone, float]] = [
        (liars, _LIARS_SHARE),
        (standalone, 1 - _LIARS_SHARE),
    ]
    for part, share in shares:
        ledger = part.run(share * seconds)
        print(render(ledger, part.figures), flush=True)
        failures += ledger.failures
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--clients", type=int, default=16)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as tmp:
        failures = campaign(Path(tmp), args.seed, args.seconds, args.clients)
    for failure in failures:
        print(f"\nBROKEN: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
