"""All benchmarks of docs/performance.md, one after the other.

    python -m tests.benchmarks [--only NAME ...] [--seconds S]

Takes about half an hour with the defaults. The machine should have nothing else to do. For other
settings, run one benchmark: `python -m tests.benchmarks.NAME --help`.
"""

import subprocess
import sys
import time
from datetime import UTC, datetime

from tests.benchmarks.measure import machine, parser, version

NAMES = ("latency", "overload", "recovery", "real_size", "startup", "short", "long", "growth")
_PACKAGES = ("faster-whisper", "ctranslate2", "onnxruntime", "numpy", "anyio", "wyoming")


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--only", nargs="*", choices=NAMES, default=NAMES, metavar="NAME")
    made.add_argument("--seconds", type=float, help="for each, instead of its own default")
    arguments = made.parse_args()
    packages = (*_PACKAGES, "wyoming-faster-whisper")
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n\n{machine()}\n")
    print(", ".join(f"{name} {version(name)}" for name in packages), flush=True)
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
