"""All benchmarks, one after the other, as text to paste into docs/performance.md.

    python -m tests.benchmarks [--only NAME ...] [--seconds S]

About half an hour with the defaults, on a machine that should have nothing else to do. For
other settings run the one benchmark: `python -m tests.benchmarks.NAME --help`.
"""

import argparse
import subprocess
import sys
import time
from datetime import UTC, datetime

from tests.benchmarks.measure import machine, versions

NAMES = ("latency", "saturation", "overload", "recovery", "real_size", "startup", "long", "growth")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--seconds", type=float, help="for each, instead of its own default")
    arguments = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n\n{machine()}\n\n{versions()}", flush=True)
    more = [] if arguments.seconds is None else ["--seconds", str(arguments.seconds)]
    failed = [name for name in arguments.only if not _run(name, more)]
    if failed:
        print(f"\nFAILED: {', '.join(failed)}")
    return 1 if failed else 0


def _run(name: str, more: list[str]) -> bool:
    print(f"\n## {name}\n\n    python -m tests.benchmarks.{' '.join([name, *more])}\n", flush=True)
    started = time.monotonic()
    argv = [sys.executable, "-m", f"tests.benchmarks.{name}", *more]
    good = subprocess.run(argv, check=False).returncode == 0
    print(f"\n({time.monotonic() - started:.0f} s in all)", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(main())
