"""All benchmarks of docs/performance.md, one after the other.

    python -m tests.benchmarks [--only NAME ...] [--quick | --seconds S]

Takes most of an hour with the defaults, and about 20 minutes with --quick: fewer rounds and
cases, no model of the size of large-v3. The machine should have nothing else to do. For other
settings, run one benchmark: `python -m tests.benchmarks.NAME --help`.
"""

import subprocess
import sys
import time
from datetime import UTC, datetime

from tests.benchmarks.measure import machine, parser, version

NAMES = (
    *(
        "user",
        "cpu",
        "short",
        "latency",
        "turns",
        "recovery",
        "selftest",
        "overload",
        "startup",
        "long",
    ),
    *("live", "batched", "http", "growth", "real_size"),
)
# The arguments of --quick.
_QUICK = {
    "user": "--seconds 240",
    "cpu": "--seconds 240",
    "short": "--seconds 100",
    "latency": "--seconds 90 --starts 3 --lengths 1 5 30 --ways payload wyoming",
    "turns": "--seconds 60 --minutes 5",
    "recovery": "--seconds 150 --kills 12",
    "selftest": "",
    "overload": "--seconds 60 --clients 8 200 --peer-clients 8 200",
    "startup": "--seconds 20 --rounds 3",
    "long": "--seconds 75 --minutes 1 60 --encoded-minutes 1",
    "live": "",
    "batched": "",
    "http": "--seconds 60 --starts 3",
    "growth": "--seconds 20 --waiting 0 10000 --connected 0 2000",
}
_PACKAGES = ("faster-whisper", "ctranslate2", "onnxruntime", "numpy", "anyio", "wyoming")


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--only", nargs="*", choices=NAMES, default=NAMES, metavar="NAME")
    how = made.add_mutually_exclusive_group()
    how.add_argument("--seconds", type=float, help="for each, instead of its own default")
    how.add_argument("--quick", action="store_true", help="all but real_size, with fewer rounds")
    arguments = made.parse_args()
    packages = (*_PACKAGES, "wyoming-faster-whisper")
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n\n{machine()}\n")
    print(", ".join(f"{name} {version(name)}" for name in packages), flush=True)
    more = [] if arguments.seconds is None else ["--seconds", str(arguments.seconds)]
    chosen = dict.fromkeys(arguments.only, more)
    if arguments.quick:
        chosen = {name: _QUICK[name].split() for name in arguments.only if name in _QUICK}
    failed = [name for name, words in chosen.items() if not _run(name, words)]
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
