"""The fault campaigns: `python -m tests.soak [--systemd] --seed N --seconds S [--clients C]`."""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.soak.campaign import Campaign, crashing_model
from tests.soak.ledger import Ledger
from tests.soak.liars import Liars
from tests.soak.limits import config
from tests.soak.report import render
from tests.soak.standalone import Standalone
from tests.soak.units import Units
from tests.support.systemd.packages import built

# Of the whole time, for the workers that lie.
_LIARS_SHARE = 0.2
_QUEUE_MAX = 8


def standalone(seed: int, seconds: float, clients: int, keep: Path | None = None) -> list[str]:
    """Workers that lie, then the real ones under `asrd run`; prints both tables, and returns the
    broken promises. `keep`: where to leave the logs."""
    with _directory(keep) as tmp:
        liars = Liars(tmp, seed, clients)
        failures = _told(liars.run(_LIARS_SHARE * seconds), liars.figures)
        model = crashing_model(tmp)
        host = Standalone(tmp / "standalone", config(str(model), _QUEUE_MAX))
        campaign = Campaign(host, seed, clients)
        return failures + _told(campaign.run(model, (1 - _LIARS_SHARE) * seconds), campaign.figures)


def systemd(
    seed: int, seconds: float, clients: int, debs: Path | None, keep: Path | None = None
) -> list[str]:
    """The packages (`debs`; otherwise they are built) under a real systemd; needs root."""
    with _directory(keep) as tmp:
        if debs is None:
            (tmp / "debs").mkdir()
            debs = built(tmp / "debs")
        campaign = Campaign(Units(tmp / "systemd", debs), seed, clients)
        return _told(campaign.run(crashing_model(tmp), seconds), campaign.figures)


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        yield Path(name)


def _told(ledger: Ledger, figures: list[tuple[str, str]]) -> list[str]:
    print(render(ledger, figures), end="\n\n", flush=True)
    return ledger.failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--systemd", action="store_true", help="under a real systemd, as root")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--keep", type=Path, help="a new directory, for the daemons' logs")
    args = parser.parse_args()
    if args.systemd:
        ready = os.environ.get("ASRD_DEBS")
        debs = Path(ready) if ready else None
        failures = systemd(args.seed, args.seconds, args.clients, debs, args.keep)
    else:
        failures = standalone(args.seed, args.seconds, args.clients, args.keep)
    for failure in failures:
        print(f"BROKEN: {failure}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
