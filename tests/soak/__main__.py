"""Fault campaigns: `python -m tests.soak [--systemd] --seed N --seconds S [--clients C]`."""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.soak import campaign, liars
from tests.soak.host import config
from tests.soak.ledger import Ledger
from tests.soak.report import render
from tests.soak.standalone import Standalone
from tests.soak.units import Units
from tests.support.daemons import crashing_model
from tests.support.systemd.service import built

# The share of the time for the campaign of lying workers.
_LIARS_SHARE = 0.2
_QUEUE_MAX = 8


def standalone(seed: int, seconds: float, clients: int, keep: Path | None = None) -> list[str]:
    """Runs the campaign of lying workers, then that of real ones under `asrd run`; prints both
    reports and returns the broken promises. `keep`: a new directory for the logs."""
    with _directory(keep) as tmp:
        failures = _reported(liars.run(tmp, seed, clients, _LIARS_SHARE * seconds))
        model = crashing_model(tmp)
        host = Standalone(tmp / "standalone", config(str(model), _QUEUE_MAX))
        ledger = campaign.run(host, model, seed, clients, (1 - _LIARS_SHARE) * seconds)
        return failures + _reported(ledger)


def systemd(seed: int, seconds: float, clients: int, keep: Path | None = None) -> list[str]:
    """Runs the campaign with the packages of this checkout under a real systemd; needs root."""
    with _directory(keep) as tmp:
        (tmp / "debs").mkdir()
        host = Units(tmp / "systemd", built(tmp / "debs"))
        return _reported(campaign.run(host, crashing_model(tmp), seed, clients, seconds))


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        yield Path(name)


def _reported(ledger: Ledger) -> list[str]:
    print(render(ledger), end="\n\n", flush=True)
    return ledger.failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--systemd", action="store_true", help="under a real systemd, as root")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--keep", type=Path, help="a new directory, for the daemons' logs")
    args = parser.parse_args()
    run = systemd if args.systemd else standalone
    failures = run(args.seed, args.seconds, args.clients, args.keep)
    for failure in failures:
        print(f"BROKEN: {failure}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
