"""Fault campaigns: `python -m tests.soak [--systemd | --model DIR] --seed N --seconds S`."""

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.soak import campaign, clips, liars
from tests.soak.host import LIMITS, config
from tests.soak.ledger import Ledger
from tests.soak.report import render
from tests.soak.standalone import Standalone
from tests.soak.units import Units
from tests.support.daemons import crashing_model
from tests.support.systemd.service import built

# The share of the time for the campaign of lying workers.
_LIARS_SHARE = 0.2
_FAULTS_EVERY_SECONDS = 2.5
# A real model takes longer to load, and for each window.
_REAL_FAULTS_EVERY_SECONDS = 5.0
_REAL_LIMITS = replace(LIMITS, window=5, grace=20)
_CLIENTS, _REAL_CLIENTS = 16, 5


def standalone(seed: int, seconds: float, clients: int, keep: Path | None = None) -> list[str]:
    """Runs the campaign of lying workers, then that of real ones under `asrd run`; prints both
    reports and returns the broken promises. `keep`: a new directory for the logs."""
    with _directory(keep) as tmp:
        failures = _reported(liars.run(tmp, seed, clients, _LIARS_SHARE * seconds))
        model = crashing_model(tmp)
        host = Standalone(tmp / "standalone", config(str(model)))
        plan = _plan(model, tmp, seed, clients, (1 - _LIARS_SHARE) * seconds)
        return failures + _reported(campaign.run(host, seed, plan))


def systemd(seed: int, seconds: float, clients: int, keep: Path | None = None) -> list[str]:
    """Runs the campaign with the packages of this checkout under a real systemd; needs root."""
    with _directory(keep) as tmp:
        (tmp / "debs").mkdir()
        host = Units(tmp / "systemd", built(tmp / "debs"))
        plan = _plan(crashing_model(tmp), tmp, seed, clients, seconds)
        return _reported(campaign.run(host, seed, plan))


def real(
    model: Path, seed: int, seconds: float, clients: int | None = None, keep: Path | None = None
) -> list[str]:
    """Runs the campaign under `asrd run` with real weights, those of an English model, and
    recordings of real people ($ASRD_TEST_SPEECH)."""
    with _directory(keep) as tmp:
        crashing = crashing_model(tmp, model)
        host = Standalone(tmp / "real", config(str(crashing)))
        host.title = f"standalone with {model.name}"
        known = clips.known_real(crashing, random.Random(f"{seed} clips"), tmp)
        every = _REAL_FAULTS_EVERY_SECONDS
        plan = campaign.Plan(known, clients or _REAL_CLIENTS, seconds, every, _REAL_LIMITS)
        return _reported(campaign.run(host, seed, plan))


def _plan(model: Path, tmp: Path, seed: int, clients: int, seconds: float) -> campaign.Plan:
    known = clips.known(model, random.Random(f"{seed} clips"), tmp)
    return campaign.Plan(known, clients, seconds, _FAULTS_EVERY_SECONDS, LIMITS)


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
    parser.add_argument("--model", type=Path, help="real weights of an English model")
    parser.add_argument("--speech", help="its recordings (default: $ASRD_TEST_SPEECH)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--clients", type=int, help="default: 16; 5 with --model")
    parser.add_argument("--keep", type=Path, help="a new directory, for the daemons' logs")
    args = parser.parse_args()
    if args.speech is not None:
        os.environ["ASRD_TEST_SPEECH"] = args.speech
    if args.model is not None:
        failures = real(args.model, args.seed, args.seconds, args.clients, args.keep)
    else:
        run = systemd if args.systemd else standalone
        failures = run(args.seed, args.seconds, args.clients or _CLIENTS, args.keep)
    for failure in failures:
        print(f"BROKEN: {failure}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
