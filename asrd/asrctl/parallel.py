"""Several recordings at once, as many as the daemon has workers for."""

import threading
from collections.abc import Callable, Iterable

from asrd.client.client import Client
from asrd.errors import AsrdError
from asrd.exitcodes import Exit
from asrd.snapshot import read_snapshot

_WORKING = ("ready", "busy")


def workers(client: Client) -> int:
    """Returns how many transcripts the daemon makes at once; 1 if it does not answer: a job will
    show the reason."""
    try:
        snapshot = read_snapshot(client.status())
    except (AsrdError, OSError):
        return 1
    writing = (w for w in snapshot.workers if not (w.spare or w.speakers))
    return max(1, sum(worker.state in _WORKING for worker in writing))


def attempt_all(attempt: Callable[[str], Exit], names: Iterable[str], count: int) -> list[Exit]:
    """Attempts all, `count` at once, and returns the exit codes in the order of the names. Once
    the daemon can't be reached, the rest is left out."""
    waiting = enumerate(names)
    codes: dict[int, Exit] = {}
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                unreachable = Exit.UNREACHABLE in codes.values()
                index, name = (-1, "") if unreachable else next(waiting, (-1, ""))
                if index < 0:
                    return
                codes[index] = Exit.FAILED
            codes[index] = attempt(name)

    if count == 1:
        run()
    else:
        # Ctrl-C ends the program, and with it these threads; the daemon then cancels the jobs.
        threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [codes[index] for index in sorted(codes)]
