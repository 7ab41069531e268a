"""Where a campaign's daemon runs, and what can be done to it there: everything else of a campaign,
the crowd, the ledger and the oracle, is the same under `asrd run` and under systemd."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from tests.soak.killer import Act
from tests.soak.resources import Holding


class Host(ABC):
    """A context manager: the daemon runs, with its workers ready, for as long as the block."""

    title: str
    # The clients' socket, and the log of all that the daemon's processes and their manager say.
    socket: str
    log: Path
    workers: tuple[str, ...] = ("0", "1")
    # Processes that stand by beside the front and the workers.
    spares: int = 0
    # Whom the clients are, in turn, and one who asks little; none: whoever runs the campaign.
    users: tuple[int, ...] = ()
    quiet_user: int | None = None
    # What only this manager can do, and how often in a pack; `front_acts` end the front.
    acts: Mapping[Act, int]
    front_acts: Mapping[Act, int]

    @abstractmethod
    def pids(self) -> dict[str, int]:
        """Of the processes that live: `front`, `worker 0`, …; empty if nobody can tell just now."""

    @abstractmethod
    def helpers(self) -> dict[str, int]:
        """The processes beside those that must not grow either, by name."""

    @abstractmethod
    def signal(self, pid: int, number: signal.Signals) -> None:
        """Does nothing where the process has ended."""

    @abstractmethod
    def holding(self, pid: int) -> Holding:
        """Raises OSError or ValueError where the process has ended."""

    @abstractmethod
    def processes(self) -> int:
        """How many front and workers there are in all, wanted or not."""

    @abstractmethod
    def files(self) -> set[str]:
        """Everything in the places where the daemon may write."""

    @abstractmethod
    def settings(self, worker: str) -> Path:
        """The settings file of one worker."""

    @abstractmethod
    def full_disk(self) -> AbstractContextManager[None]:
        """No byte can be written, as far as this host can do it: no audio taken in, no log."""

    @abstractmethod
    def __enter__(self) -> "Host": ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...
