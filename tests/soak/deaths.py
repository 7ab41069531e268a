"""Comparison of the deaths in the manager's log with the faults of the campaign: nothing may die
of anything else."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.soak.ledger import Ledger
from tests.soak.oracle import Kind

# The log lines of `asrd run` and of systemd.
_END = re.compile(r" asrd-run: (asrd|asr-worker)(?:@\d+)?: (killed by|exited with) (\w+)")
_UNIT_END = re.compile(
    r" systemd\[1\]: (asrd|asr-worker)(?:@\d+)?\.service: "
    r"Main process exited, code=(?:(exited), status=(\d+)|\w+, status=\d+)/(\w+)"
)
_GAVE_UP = re.compile(r" did not stop within [\d.]+ s")
_STARVED = re.compile(
    r" asrd-run: \S+: (?:no watchdog ping|not ready after)"
    r"| systemd\[1\]: asr\S+\.service: (?:Watchdog timeout|start operation timed out)"
)
# One line for each job of the worker.
_LOST = re.compile(
    r" asrd(?:\[\d+\])?: worker \w+: lost: .*, running job (\w+) \(([^)]*)\).* worker_pid=(\d+)"
)
_NOT_STARTED = range(200, 246)
_TRIES = 1_000

Deaths = Counter[str]


def count(log: Iterable[str]) -> Deaths:
    """The number of deaths by program and cause, such as `asr-worker killed by SIGSEGV`."""
    found = Deaths()
    for line in log:
        if end := _END.search(line):
            found[" ".join(end.groups())] += 1
        elif end := _UNIT_END.search(line):
            program, exited, status, name = end.groups()
            found[
                f"{program} exited with {status}" if exited else f"{program} killed by SIG{name}"
            ] += 1
        found["jobs that did not stop when cancelled"] += _GAVE_UP.search(line) is not None
        found["killed by the watchdog"] += _STARVED.search(line) is not None
    return +found


class Loss(NamedTuple):
    """A job whose worker died; `in_turn`: it was the one to blame."""

    job: str
    in_turn: bool
    pid: int


def losses(log: Iterable[str]) -> list[Loss]:
    """All jobs whose workers died, from the front's log."""
    found = (_LOST.search(line) for line in log)
    return [Loss(f[1], "in its turn" in f[2], int(f[3])) for f in found if f]


def casualties(lost: Sequence[Loss]) -> dict[str, list[int]]:
    """By job's id: the pids of the workers that died in its turn. If the front did not know whose
    turn it was, all of a worker's jobs are to blame."""
    known = {loss.pid for loss in lost if loss.in_turn}
    found = defaultdict[str, list[int]](list)
    for loss in lost:
        if loss.in_turn or loss.pid not in known:
            found[loss.job].append(loss.pid)
    return found


def unexplained(found: Deaths, ledger: Ledger) -> list[str]:
    """The deaths that the faults do not explain. The watchdog kills a stopped process with either
    signal, a poison job kills twice, and a worker exits if a cancelled job does not stop."""
    done = Deaths()
    for (what, target), number in ledger.struck.items():
        done[f"{target.split()[0]} {what}"] += number
    poison = ledger.opened(Kind.POISON)
    stopped, front_stopped = done["worker SIGSTOP"], done["front SIGSTOP"]
    allowed = {
        "asrd exited with 0": done["front SIGTERM"],
        "asrd killed by SIGABRT": front_stopped,
        "asrd killed by SIGKILL": done["front SIGKILL"] + front_stopped,
        "asr-worker exited with 0": done["worker SIGTERM"],
        "asr-worker exited with 70": found["jobs that did not stop when cancelled"],
        # The manager restarts it again and again while its model is missing.
        "asr-worker exited with 78": 10 * done["worker no model"],
        "asr-worker killed by SIGABRT": done["worker SIGABRT"] + stopped,
        "asr-worker killed by SIGKILL": done["worker SIGKILL"] + stopped,
        "asr-worker killed by SIGSEGV": done["worker SIGSEGV"] + 2 * poison,
        "killed by the watchdog": stopped + front_stopped,
        "jobs that did not stop when cancelled": sum(ledger.outcomes.values()),
    }
    # systemd's codes for a unit that it can't set up, which it restarts again and again while /run
    # is full.
    for code in _NOT_STARTED:
        allowed[f"asr-worker exited with {code}"] = _TRIES * done["disk no space left"]
        allowed[f"asrd exited with {code}"] = _TRIES * done["disk no space left"]
    return [
        f"{what}: {number} times, explained {allowed.get(what, 0)} times"
        for what, number in found.items()
        if number > allowed.get(what, 0)
    ]
