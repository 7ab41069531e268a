"""Start-up and memory of front and worker, what the front imports, and the cold start of a worker
that sleeps until somebody asks.

    python -m tests.benchmarks.startup [--seconds S] [--rounds N] [--systemd]

`--systemd` boots a machine with the Debian packages (as `pytest -m systemd` does, with its needs)
and times the first answer after both services were stopped: the connection starts the front, the
front's connection the worker.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from asrd import Client
from asrd.demo import MODEL
from tests.benchmarks.bare import bare
from tests.benchmarks.measure import (
    CONFIG,
    as_a_worker,
    daemon,
    machine,
    memory_mib,
    parser,
    pcm,
    seconds_of,
    speech,
    table,
    wait_until_ready,
)
from tests.support.daemons import Front

_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|(\s+)(\S+)")
_FRONT = "asrd.front.server"
_TOP = 12
_SLEEPY = f"{CONFIG}idle_exit_seconds = 0.3\n"
_COLD = """
import sys, time
sys.path.append("/usr/lib/asrd/vendor")
from asrd import Client
start = time.monotonic()
with Client() as client:
    client.transcribe(sys.argv[1], language="en", beam_size=1)
print(time.monotonic() - start)
"""
Times = dict[str, list[float]]


def main() -> None:
    made = parser(__doc__, 60)
    made.add_argument("--rounds", type=int, default=10, help="at most; default: %(default)s")
    made.add_argument("--systemd", action="store_true")
    arguments = made.parse_args()
    as_a_worker("tests.benchmarks.startup")
    print(machine())
    _imports()
    _memory()
    times: Times = {}
    end = time.monotonic() + arguments.seconds
    for done in range(arguments.rounds):
        if done and time.monotonic() > end:
            break
        _start(times)
    if arguments.systemd:
        times["systemd, both services stopped: first answer"] = _under_systemd(arguments.rounds)
    rows = [_row(name, taken) for name, taken in times.items()]
    table("From the start of the process, or from the request", ["", "n", "p50 ms", "max ms"], rows)


def _row(name: str, taken: list[float]) -> list[str]:
    return [
        *(name, str(len(taken))),
        *(f"{1000 * statistics.median(taken):.0f}", f"{1000 * max(taken):.0f}"),
    ]


def _imports() -> None:
    """The best of five, since other processes only ever make an import slower."""
    runs = [_import_times() for _ in range(5)]
    best = {name: min(run[name] for run in runs if name in run) for name in runs[0]}
    whole = best.pop(_FRONT)
    largest = sorted(best.items(), key=lambda item: -item[1])[:_TOP]
    rows = [[name, f"{ms:.1f}"] for name, ms in [(_FRONT, whole), *largest]]
    title = f"Import time of the front, with what each module imports ({len(best)} of them)"
    table(title, ["module", "ms"], rows)


def _import_times() -> dict[str, float]:
    """Of what the interpreter itself had not imported yet."""
    argv = [sys.executable, "-X", "importtime", "-c", f"import sys; import {_FRONT}"]
    log = subprocess.run(argv, capture_output=True, text=True, check=True).stderr
    _, _, ours = log.partition("| site\n")
    found = _IMPORT.findall(ours)
    return {name: int(cumulative) / 1000 for _, cumulative, _, name in found}


def _memory() -> None:
    audio = speech(5)
    rows = []
    with daemon() as path, Client(path) as client:
        for when in ("at rest", "after 20 jobs"):
            status = client.status()
            front, worker = int(status["pid"]), int(status["workers"][0]["pid"])
            supervisor = _parent(front)
            for name, pid in (("front", front), ("worker", worker), ("supervisor", supervisor)):
                sizes = [f"{memory_mib(pid, key):.1f}" for key in ("Rss", "Pss", "VmHWM")]
                rows.append([f"{name}, {when}", *sizes])
            for _ in range(20):
                client.transcribe(audio, language="en", temperature=0.0)
    table("Memory with the demo model", ["", "RSS MiB", "PSS MiB", "peak RSS MiB"], rows)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def _start(times: Times) -> None:
    def note(name: str, seconds: float) -> None:
        times.setdefault(name, []).append(seconds)

    note("python -c pass", seconds_of(lambda: _python("pass")))
    note("python, the front's imports", seconds_of(lambda: _python(f"import {_FRONT}")))
    note("python, the worker's imports", seconds_of(lambda: _python("import asrd.engine.whisper")))
    note("bare process until its model is loaded", bare(MODEL).until_loaded)
    note("asrd serve, until it answers", _first_answer_of_the_front())
    started = time.monotonic()
    with daemon() as path:
        note("asrd run, until its worker is ready", time.monotonic() - started)
        with Client(path) as client:
            client.transcribe(pcm(speech(1)), encoding="pcm_s16le", language="en", temperature=0.0)
            note("asrd run, until its first transcript", time.monotonic() - started)
    note("asrd run, worker asleep: first transcript", _cold())


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def _first_answer_of_the_front() -> float:
    with tempfile.TemporaryDirectory() as directory:
        started = time.monotonic()
        with Front(Path(directory)):
            return time.monotonic() - started


def _cold() -> float:
    """The front is up; the request wakes the worker."""
    audio = speech(1)
    with daemon(config=_SLEEPY) as path, Client(path) as client:
        while client.status()["workers"][0]["state"] != "asleep":
            time.sleep(0.02)
        # Its exit is a moment later.
        time.sleep(0.2)
        taken = seconds_of(lambda: client.transcribe(audio, language="en", temperature=0.0))
        wait_until_ready(path)
    return taken


def _under_systemd(rounds: int) -> list[float]:
    from tests.support.systemd.nspawn import booted
    from tests.support.systemd.service import INSIDER, SAMPLE, Service, built, install

    def measure(debs: Path) -> list[float]:
        with booted(debs) as box:
            install(box, *debs.glob("*.deb"))
            service = Service(box)
            service.add_users()
            service.until_worker("ready")
            times = []
            for _ in range(rounds):
                service.systemctl("stop", "asrd.service", "asr-worker@0.service")
                argv = ["/usr/bin/python3", "-c", _COLD, SAMPLE]
                times.append(float(box.output(*argv, user=INSIDER)))
            return times

    if ready := os.environ.get("ASRD_DEBS"):
        return measure(Path(ready))
    with tempfile.TemporaryDirectory() as directory:
        return measure(built(Path(directory)))


if __name__ == "__main__":
    main()
