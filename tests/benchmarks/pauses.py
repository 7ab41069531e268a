"""Pauses that clients notice in restarts and an upgrade, with the packages under a real systemd.

    python -m tests.benchmarks.pauses [--model M] [--minutes N] [--suites S ...] [--workers N ...]

As root, with what `-m systemd` needs. In each machine a recording of `--minutes` is transcribed
again and again, and beside it a client pings, asks for the status on new connections, and sends
commands of 3 s. Meanwhile front and workers restart, and apt upgrades the packages from another
version. It fails unless each transcript is the undisturbed one.
"""

import contextlib
import json
import shutil
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks import measure
from tests.support.raw import wait_for
from tests.support.systemd import pauses
from tests.support.systemd.building import builder, here
from tests.support.systemd.debs import older
from tests.support.systemd.nspawn import SUITES, booted
from tests.support.systemd.service import INSIDER, Service, built, install

# The recording repeats so many seconds of real speech.
_SPEECH_SECONDS = 300
# Between two disturbances.
_REST_SECONDS = 15.0
_MODEL = "/var/lib/asrd/models/bench"
_COLUMNS = ["release", "workers", "meanwhile", "ping", "status", "command"]


def main() -> int:
    made = measure.parser(__doc__, model="base")
    made.add_argument("--minutes", type=float, default=60, help="default: %(default)g")
    made.add_argument("--suites", nargs="+", choices=SUITES, default=SUITES)
    made.add_argument("--workers", nargs="+", type=int, choices=(1, 2), default=(1, 2))
    arguments = made.parse_args()
    print(measure.machine())
    rows = []
    for suite in arguments.suites:
        with _packages(suite) as debs:
            for workers in arguments.workers:
                with booted(debs, suite=suite) as machine:
                    bench = Bench(Service(machine), debs, workers)
                    bench.install(arguments.model)
                    rows += [[suite, str(workers), *row] for row in bench.run(arguments.minutes)]
    measure.table("Longest time of each thing", _COLUMNS, rows)
    return 0


@contextlib.contextmanager
def _packages(suite: str) -> Iterator[Path]:
    """Yields a directory with the packages of this checkout, and in `old` those of another version
    with the same files."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if suite == here():
            debs = built(directory)
        else:
            machine = stack.enter_context(builder(suite))
            machine.build()
            debs = machine.debs
        found = Path(shutil.copytree(debs, directory / "found"))
        (found / "old").mkdir()
        older(found, found / "old")
        yield found


class Bench:
    def __init__(self, service: Service, debs: Path, workers: int) -> None:
        self._service, self._machine = service, service.machine
        self._debs, self._workers = debs, workers

    def install(self, model: measure.Model) -> None:
        """Installs the older packages, the model and its speech."""
        machine = self._machine
        install(machine, *(self._debs / "old").glob("*.deb"))
        self._service.add_users()
        shutil.copytree(model.path, machine.root / _MODEL.lstrip("/"))
        machine.run("chmod", "-R", "a+rX", _MODEL)
        machine.write("/etc/asrd/asrd.toml", f'[worker]\nmodel = "{_MODEL}"\n')
        machine.write("/srv/pauses.py", Path(pauses.__file__).read_text())
        with wave.open(str(machine.root / "srv/speech.wav"), "wb") as file:
            file.setparams((1, 2, measure.RATE, 0, "NONE", ""))
            file.writeframes(measure.pcm(model.speech(_SPEECH_SECONDS)))
        if self._workers == 2:
            self._service.systemctl("enable", "--now", "asr-worker@1.socket")
        self._service.systemctl("restart", "asrd.service", "asr-workers.target")
        for name in map(str, range(self._workers)):
            self._service.until_worker("ready", name, 60)

    def run(self, minutes: float) -> list[list[str]]:
        """Returns a row for each disturbance."""
        argv = ["/usr/bin/python3", "/srv/pauses.py", "/srv/speech.wav", str(60 * minutes)]
        process = self._machine.start(*argv, user=INSIDER)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline() != "begun\n":
                raise RuntimeError(process.communicate()[1])
            time.sleep(_REST_SECONDS)
            for name, disturb in self._disturbances().items():
                print(f"{name}\n", file=process.stdin, end="", flush=True)
                disturb()
                time.sleep(_REST_SECONDS)
            output, errors = process.communicate(timeout=3600)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        if process.returncode != 0:
            raise RuntimeError(errors)
        return self._rows(json.loads(output))

    def _disturbances(self) -> dict[str, Callable[[], object]]:
        systemctl = self._service.systemctl
        return {
            "nothing": lambda: None,
            "restart asrd": lambda: systemctl("restart", "asrd.service"),
            "restart asr-workers.target": lambda: systemctl("restart", "asr-workers.target"),
            "asrctl restart-workers": lambda: self._machine.run("asrctl", "restart-workers"),
            "apt upgrade": self._upgrade,
            "nothing again": lambda: None,
        }

    def _upgrade(self) -> None:
        before = self._service.pid("asrd.service")
        install(self._machine, *self._debs.glob("*.deb"))
        wait_for("the next front", lambda: self._service.pid("asrd.service") not in (0, before))

    def _rows(self, found: dict[str, Any]) -> list[list[str]]:
        print(f"attempts of each job: {found['attempts']}", flush=True)
        return [
            [phase, *(f"{longest[name]:.2f} s" for name in _COLUMNS[3:])]
            for phase, longest in found["longest"].items()
            if phase
        ]


if __name__ == "__main__":
    raise SystemExit(main())
