"""Start-up time and memory of front and worker.

python -m tests.benchmarks.startup [--model M] [--seconds S] [--rounds N]
"""

import statistics
import tempfile
import time
from pathlib import Path

from asrd import Client
from tests.benchmarks import measure
from tests.benchmarks.bare import bare
from tests.support.daemons import Front

Times = dict[str, list[float]]


def main() -> None:
    made = measure.parser(__doc__, 60, "base")
    made.add_argument("--rounds", type=int, default=10, help="at most; default: %(default)s")
    arguments = made.parse_args()
    measure.use_worker_environment()
    print(measure.machine())
    _memory(arguments.model)
    times: Times = {}
    for _ in measure.rounds(arguments.seconds, 1, arguments.rounds):
        _start(arguments.model, times)
    rows = [
        [name, str(len(taken))]
        + [f"{1000 * seconds:.0f}" for seconds in (statistics.median(taken), max(taken))]
        for name, taken in times.items()
    ]
    title = "From the start of the process, or from the request"
    measure.table(title, ["", "n", "p50 ms", "max ms"], rows)


def _memory(model: measure.Model) -> None:
    audio = model.speech(5)
    rows = []
    with measure.daemon(model=model.path) as path, Client(path) as client:
        for when in ("at rest", "after 20 jobs"):
            status = client.status()
            front, worker = int(status["pid"]), int(status["workers"][0]["pid"])
            supervisor = _parent(front)
            for name, pid in (("front", front), ("worker", worker), ("supervisor", supervisor)):
                sizes = [f"{measure.memory_mib(pid, key):.1f}" for key in ("Rss", "Pss", "VmHWM")]
                rows.append([f"{name}, {when}", *sizes])
            for _ in range(20):
                client.transcribe(audio, **measure.ASKED)
    header = ["", "RSS MiB", "PSS MiB", "peak RSS MiB"]
    measure.table(f"Memory with the model {model.path.name}", header, rows)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def _start(model: measure.Model, times: Times) -> None:
    def note(name: str, seconds: float) -> None:
        times.setdefault(name, []).append(seconds)

    note("bare process until its model is loaded", bare(model.path).loaded)
    note("asrd serve, until it answers", _first_answer_of_the_front())
    audio = model.speech(1)
    started = time.monotonic()
    with measure.daemon(model=model.path) as path:
        note("asrd run, until its worker is ready", time.monotonic() - started)
        with Client(path) as client:
            client.transcribe(audio, **measure.ASKED)
            note("asrd run, until its first transcript", time.monotonic() - started)


def _first_answer_of_the_front() -> float:
    with tempfile.TemporaryDirectory() as directory:
        started = time.monotonic()
        with Front(Path(directory)):
            return time.monotonic() - started


if __name__ == "__main__":
    main()
