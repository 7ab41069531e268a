"""The daemon of a campaign as `asrd run`: the supervisor's children are what is killed."""

import contextlib
import os
import resource
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from asrd.wire.fds import OwnedFd
from tests.soak.host import Host
from tests.soak.killer import Act
from tests.soak.limits import PATIENCE
from tests.soak.resources import Holding
from tests.support.daemons import Daemon
from tests.support.procfs import children
from tests.support.raw import status

_NOTHING: Mapping[Act, int] = {}


class Standalone(Host):
    title = "standalone"
    acts = front_acts = _NOTHING

    def __init__(self, home: Path, config: str) -> None:
        home.mkdir()
        self._home = home
        watchdog, start = str(PATIENCE.watchdog), str(PATIENCE.start)
        timeouts = ["--watchdog", watchdog, "--start-timeout", start]
        self._daemon = Daemon(home, "--workers", str(len(self.workers)), *timeouts, config=config)
        self._supervisor = self._daemon.process.pid
        self.socket = self._daemon.socket
        self.log = home / "log"

    def pids(self) -> dict[str, int]:
        try:
            told = status(self.socket)
        except (OSError, AssertionError):
            return {}
        workers = {f"worker {w['name']}": w["pid"] for w in told["workers"] if w["pid"]}
        return {"front": told["pid"], **workers}

    def helpers(self) -> dict[str, int]:
        return {"supervisor": self._supervisor}

    def signal(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError), OwnedFd(os.pidfd_open(pid)) as pidfd:
            # Looked at after the pidfd was opened: a recycled pid can't fool us any more.
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


@contextlib.contextmanager
def no_room(*pids: int) -> Iterator[None]:
    """Each write to a file or a memfd of these processes fails with EFBIG, for which no disk need
    be full and nobody be root."""
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
