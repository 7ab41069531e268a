"""The daemon of a campaign under `asrd run`; the faults hit the supervisor's children."""

import contextlib
import os
import resource
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from asrd.wire.fds import OwnedFd
from tests.soak.host import START, WATCHDOG, Host
from tests.soak.killer import Act, Killer
from tests.soak.resources import Holding
from tests.support.daemons import Daemon
from tests.support.procfs import children
from tests.support.raw import status

_NOTHING: Mapping[Act, int] = {}
# Root may play clients of any users.
_USERS, _QUIET, _HOG = (60_001, 60_002, 60_003), 60_004, 60_005


class Standalone(Host):
    title = "standalone"
    front_acts = _NOTHING

    def __init__(self, home: Path, config: str) -> None:
        home.mkdir()
        if os.geteuid() == 0:
            self.users, self.quiet_user, self.hog = _USERS, _QUIET, _HOG
        self.acts = {_restart_workers: 1}
        self._home = home
        timeouts = ["--watchdog", str(WATCHDOG), "--start-timeout", str(START)]
        self._daemon = Daemon(home, "--workers", str(len(self.workers)), *timeouts, config=config)
        self._supervisor = self._daemon.process.pid
        self.socket = self._daemon.socket
        self.log = home / "log"

    def pids(self) -> dict[str, int]:
        try:
            answer = status(self.socket)
        except (OSError, AssertionError):
            return {}
        workers = {f"worker {w['name']}": w["pid"] for w in answer["workers"] if w["pid"]}
        return {"front": answer["pid"], **workers}

    def helpers(self) -> dict[str, int]:
        return {"supervisor": self._supervisor}

    def signal(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError), OwnedFd(os.pidfd_open(pid)) as pidfd:
            # After the pidfd is open, a recycled pid can no longer be mistaken for a child.
            if pid in children(self._supervisor):
                signal.pidfd_send_signal(pidfd.fileno(), number)

    def holding(self, pid: int) -> Holding:
        return Holding.of(Path(f"/proc/{pid}"))

    def processes(self) -> int:
        return len(children(self._supervisor))

    def files(self) -> set[str]:
        return {path.name for path in self._home.iterdir()}

    def settings(self, worker: str) -> Path:
        return self._home / f"worker-{worker}.toml"

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        with no_room(*self.pids().values()):
            yield

    def __enter__(self) -> "Standalone":
        self._daemon.__enter__()
        self._daemon.wait_until_ready(*self.workers)
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.stop()
        left = self.files() - {"asrd.toml", "log"}
        assert not left, f"left behind: {left}"


def _restart_workers(killer: Killer) -> None:
    """Asks all workers to end, as an upgrade does."""
    for name in killer.host.pids().keys() - {"front"}:
        killer.send(name, signal.SIGTERM)


@contextlib.contextmanager
def no_room(*pids: int) -> Iterator[None]:
    """Makes each write of these processes to a file or a memfd fail with EFBIG, which needs neither
    a full disk nor root."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def limit(soft: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

    limit(0)
    try:
        yield
    finally:
        limit(hard)
