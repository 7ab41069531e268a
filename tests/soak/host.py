"""The place where a campaign's daemon runs, its settings, and the faults that are possible there.
The crowd, the ledger and the judge are the same under `asrd run` and under systemd."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from asrd.settings import FrontSettings
from tests.soak.killer import Act
from tests.soak.oracle import Limits
from tests.soak.resources import Holding

# The manager's time limits in seconds, short enough that all of them pass in a campaign: the
# watchdog's, to start, to dump core after the watchdog's SIGABRT, to stop after SIGTERM.
WATCHDOG, START, ABORT, STOP = 5, 12, 2, 45
# START bounds the end of a process that is stopped while it starts. `window` is for the demo model,
# which needs about 0.05 s alone on a core.
LIMITS = Limits(
    wait=FrontSettings().max_wait_seconds, slow_death=START + 4, frame=5, stop=STOP, window=0.5
)


def config(model: str) -> str:
    """The settings that a campaign needs; the default of each other is promised to serve."""
    return f"""
[front]
# With the default of 30 s, those who stall would do little else in a short campaign.
frame_timeout_seconds = {LIMITS.frame}
# The front's allocator may keep what waited for a client that never reads: no leak must hide there.
output_max_bytes = 1048576
[worker]
model = '{model}'
# The model is to crash.
check_model = false
# As for the known texts: the number of threads may show in a text.
device = 'cpu'
cpu_threads = 1
"""


class Host(ABC):
    """A context manager that runs the daemon; its workers are ready when the block begins."""

    title: str
    # The clients' socket, and the log of the daemon's processes and their manager.
    socket: str
    log: Path
    workers: tuple[str, ...] = ("0", "1")
    # True if the engine there has other libraries than this process.
    foreign = False
    # The clients' users, one with few and short jobs, and one with long ones; none if all are the
    # campaign's own user.
    users: tuple[int, ...] = ()
    quiet_user: int | None = None
    hog: int | None = None
    # The faults that only this manager knows, with their weights; `front_acts` end the front.
    acts: Mapping[Act, int]
    front_acts: Mapping[Act, int]

    @abstractmethod
    def pids(self) -> dict[str, int]:
        """The processes that live: `front`, `worker 0`, …; empty if nothing answers just now."""

    @abstractmethod
    def helpers(self) -> dict[str, int]:
        """The other processes that must not grow, by name."""

    @abstractmethod
    def signal(self, pid: int, number: signal.Signals) -> None:
        """Sends a signal; does nothing if the process has ended."""

    @abstractmethod
    def holding(self, pid: int) -> Holding:
        """Raises OSError or ValueError if the process has ended."""

    @abstractmethod
    def processes(self) -> int:
        """The number of all fronts and workers, wanted or not."""

    @abstractmethod
    def files(self) -> set[str]:
        """All files in the places where the daemon may write."""

    @abstractmethod
    def settings(self, worker: str) -> Path:
        """The settings file of one worker."""

    @abstractmethod
    def full_disk(self) -> AbstractContextManager[None]:
        """No byte can be written during the block, as far as this host can do it: neither audio
        nor log."""

    @abstractmethod
    def __enter__(self) -> "Host": ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...
