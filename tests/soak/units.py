"""The daemon of a campaign from its Debian packages under a real systemd: the faults hit its units,
and its clients are several users."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from asrd.wire.fds import OwnedFd
from tests.soak.host import ABORT, START, STOP, WATCHDOG, Host, config
from tests.soak.killer import Killer
from tests.soak.resources import Holding
from tests.support.daemons import crashing_model
from tests.support.procfs import children
from tests.support.systemd.nspawn import Machine, booted
from tests.support.systemd.service import Service, install

_USERS = ("ann", "cem", "dora")
_QUIET, _HOG = "uma", "hugo"
_TIMES = f"""[Service]
WatchdogSec={WATCHDOG}
TimeoutStartSec={START}
TimeoutAbortSec={ABORT}
TimeoutStopSec={STOP}
"""
# The file systems that the front, the workers, and systemd for them write to. Full means that no
# page and no file more can be added.
_DISKS = ("/run", "/tmp", "/var/cache/asrd")
# Tries again if a process wrote meanwhile: no file system can be smaller than its content.
_FILL = """full() {
    set -- "$1" $(df -k --output=used,iused "$1" | tail -n 1)
    mount -o "remount,size=$(($2 ? $2 : 4))k,nr_inodes=$3" "$1" 2>/dev/null
}
for d; do
    for try in 1 2 3 4 5 6 7 8 9 10; do ! full "$d" || continue 2; done
    exit 1
done"""
_EMPTY = 'for d; do mount -o remount,size=1g,nr_inodes=100k "$d"; done'
_OUT_SECONDS = 2.0


class Units(Host):
    title = "systemd"
    foreign = True

    def __init__(self, home: Path, debs: Path) -> None:
        home.mkdir()
        self._debs = debs
        self._stack = ExitStack()
        self.log = home / "log"
        self.log.touch()
        self._units = ["asrd.service", *(f"asr-worker@{name}.service" for name in self.workers)]
        self.acts = {self._restart_workers: 1, self._stop_socket: 1}
        self.front_acts = {self._restart_front: 2, self._stop_front: 1}
        self._machine: Machine
        self._systemctl: Callable[..., None]

    def __enter__(self) -> "Units":
        with ExitStack() as stack:
            machine = self._machine = stack.enter_context(booted(self._debs))
            service = Service(machine)
            self._systemctl = service.systemctl
            install(machine, *self._debs.glob("*.deb"))
            self.users = tuple(map(self._add_user, _USERS))
            self.quiet_user, self.hog = self._add_user(_QUIET), self._add_user(_HOG)
            # Only root can read /proc of the machine, but any user can use its own descriptors.
            directory = OwnedFd(os.open(machine.inside / "run/asrd", os.O_PATH | os.O_CLOEXEC))
            stack.enter_context(directory)
            self.socket = f"/proc/self/fd/{directory.fileno()}/asrd.sock"
            self._configure()
            stack.enter_context(self._journal())
            self._systemctl("restart", "asr-worker@0.socket", *self._units)
            for name in self.workers:
                service.until_worker("ready", name)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def pids(self) -> dict[str, int]:
        shown = self._machine.output(
            "systemctl", "show", "--property=MainPID", "--value", *self._units
        )
        names = ["front", *(f"worker {name}" for name in self.workers)]
        pairs = zip(names, map(int, shown.split()), strict=True)
        return {name: pid for name, pid in pairs if pid}

    def helpers(self) -> dict[str, int]:
        return {}

    def signal(self, pid: int, number: signal.Signals) -> None:
        script = 'kill "-$1" "$2"'
        self._machine.run("sh", "-c", script, "sh", str(number.value), str(pid), check=False)

    def holding(self, pid: int) -> Holding:
        return Holding.of(self._machine.inside / "proc" / str(pid))

    def processes(self) -> int:
        """Counts by name, which leaves out systemd's child before its exec and the scripts of the
        units."""
        return sum(name in ("asrd", "asr-worker") for name in self._names())

    def _names(self) -> Iterator[str]:
        for proc in (self._machine.inside / "proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                yield (proc / "comm").read_text().strip()

    def files(self) -> set[str]:
        places = ["/run/asrd", "/tmp", "/var/tmp", "/var/cache/asrd", "/var/lib/asrd"]
        # systemd's private directories get new names each time.
        named = "s/^(.*systemd-private-).*(-asr.*service)-[^/]*/\\1\\2/"
        script = f'find "$@" | sed -E "{named}"'
        found = set(self._machine.output("sh", "-c", script, "sh", *places).splitlines())
        # The front keeps the first one; restart-backoff writes the others around a worker's starts.
        kept = {"/run/asrd/front/crashes.json"}
        return found - kept - {f"/run/asrd/backoff/{n}{end}" for n in "01" for end in ("", ".env")}

    def settings(self, worker: str) -> Path:
        return self._machine.root / f"etc/asrd/worker-{worker}.toml"

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Fills the file systems, and keeps the front's memfds from growing."""
        run = self._machine.run
        front = self.pids().get("front", 0)
        try:
            run("sh", "-ec", _FILL, "sh", *_DISKS)
            self._limit_files(front, "0")
            yield
        finally:
            self._limit_files(front, "unlimited")
            run("sh", "-ec", _EMPTY, "sh", *_DISKS)

    def _limit_files(self, pid: int, size: str) -> None:
        self._machine.run("prlimit", f"--pid={pid}", f"--fsize={size}:unlimited", check=False)

    # --- set-up ------------------------------------------------------------------------------

    def _add_user(self, name: str) -> int:
        self._machine.run("useradd", "--groups", "asr", name)
        return int(self._machine.output("id", "-u", name))

    def _configure(self) -> None:
        machine = self._machine
        model = crashing_model(machine.root / "var/lib/asrd/models")
        for path in (model, *model.iterdir()):
            path.chmod(0o755)
        inside = f"/{model.relative_to(machine.root)}"
        machine.write("/etc/asrd/asrd.toml", config(inside))
        for unit in ("asrd.service", "asr-worker@.service"):
            machine.write(f"/etc/systemd/system/{unit}.d/soak.conf", _TIMES)
        machine.run("mkdir", "-p", "/var/cache/asrd")
        machine.run("mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", "/var/cache/asrd")
        self._systemctl("daemon-reload")
        self._systemctl("enable", "--now", *(f"asr-worker@{name}.socket" for name in self.workers))

    @contextlib.contextmanager
    def _journal(self) -> Iterator[None]:
        """Copies the journal to `log` in the format of `asrd run`."""
        follow = ["journalctl", "--follow", "--lines=0", "--output=json", "--all"]
        process = self._machine.start(*follow)
        thread = threading.Thread(target=self._copy, args=(process,))
        thread.start()
        try:
            yield
        finally:
            # The child is journalctl: nsenter(1) waits for it, and does not end it.
            for pid in children(process.pid):
                os.kill(pid, signal.SIGTERM)
            process.wait()
            thread.join()
            process.communicate()

    def _copy(self, journal: "subprocess.Popen[str]") -> None:
        assert journal.stdout is not None
        with open(self.log, "a", buffering=1) as log:
            for line in journal.stdout:
                log.write(_as_line(json.loads(line)))

    # --- faults of systemd only ---------------------------------------------------------------

    def _restart_workers(self, killer: Killer) -> None:
        for name, pid in self.pids().items():
            if name != "front":
                killer.ledger.fault("restart", name, pid, lambda: None)
        self._systemctl("restart", "--no-block", "asr-workers.target")

    def _stop_socket(self, killer: Killer) -> None:
        """Stops the socket, and so the worker; starts it again a while later."""
        name = killer.chance.choice(self.workers)
        unit, target = f"asr-worker@{name}.socket", f"worker {name}"
        stop = ("stop", "--no-block", unit)
        killer.ledger.fault(
            "stop of its socket", target, killer.pid(target), lambda: self._systemctl(*stop)
        )
        killer.stop.wait(_OUT_SECONDS)
        self._systemctl("start", "--no-block", unit)

    def _restart_front(self, killer: Killer) -> None:
        restart = ("restart", "--no-block", "asrd.service")
        pid = killer.pid("front")
        killer.ledger.fault("restart", "front", pid, lambda: self._systemctl(*restart))

    def _stop_front(self, killer: Killer) -> None:
        """Stops the front; only the watchdog ends it."""
        killer.send("front", signal.SIGSTOP)


def _as_line(entry: Mapping[str, Any]) -> str:
    at = datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1e6)
    moment = f"{at:%Y-%m-%d %H:%M:%S},{at.microsecond // 1000:03}"
    who = f"{entry.get('SYSLOG_IDENTIFIER')}[{entry.get('_PID')}]"
    names = ("ASRD_WORKER_PID", "ASRD_JOB_ID", "ASRD_PEER_UID", "ASRD_DROPPED")
    pairs = [f" {n.removeprefix('ASRD_').lower()}={entry[n]}" for n in names if n in entry]
    # A message that is not text is a list of bytes.
    return f"{moment} {who}: {entry.get('MESSAGE')}{''.join(pairs)}\n"
