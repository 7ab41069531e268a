"""Who died, as the supervisor saw it, held against what the campaign killed: nothing may die of
anything else."""

import collections
import re

from tests.soak.ledger import Kind, Ledger

_END = re.compile(r" asrd-run: (asrd|asr-worker)(?:@\d+)?: (killed by|exited with) (\w+)")
_GAVE_UP = re.compile(r" did not stop within [\d.]+ s")
_STARVED = re.compile(r" asrd-run: (\S+): (?:no watchdog ping|not ready after)")

Deaths = collections.Counter[str]


def count(log: str) -> Deaths:
    """By program and how it ended: `asr-worker killed by SIGSEGV`."""
    found = Deaths(f"{who} {how} {what}" for who, how, what in _END.findall(log))
    found["jobs that did not stop when cancelled"] = len(_GAVE_UP.findall(log))
    found["killed by the watchdog"] = len(_STARVED.findall(log))
    return +found


def casualties(log: str) -> Deaths:
    """By job's id: how often its worker died while it ran it, as the front saw it."""
    lost = re.findall(r" asrd: worker \w+: lost: .*, running (.*)", log)
    return Deaths(job for jobs in lost for job in re.findall(r"job (\w+)", jobs))


def unexplained(found: Deaths, ledger: Ledger) -> list[str]:
    """What died more often than it was killed. A stopped process is killed by its watchdog with
    either signal; a poison job kills twice; a job that does not stop takes its worker along."""
    done = Deaths(f"{f.target.split()[0]} {f.what}" for f in ledger.faults)
    poison = sum(job.kind is Kind.POISON for job in ledger.jobs)
    stopped = done["worker SIGSTOP"]
    allowed = {
        "asrd exited with 0": done["front SIGTERM"],
        "asrd killed by SIGKILL": done["front SIGKILL"],
        "asr-worker exited with 0": done["worker SIGTERM"],
        "asr-worker exited with 70": found["jobs that did not stop when cancelled"],
        # Tried again and again while its model is away.
        "asr-worker exited with 78": 10 * ledger.tricks["model taken away"],
        "asr-worker killed by SIGABRT": done["worker SIGABRT"] + stopped,
        "asr-worker killed by SIGKILL": done["worker SIGKILL"] + stopped,
        "asr-worker killed by SIGSEGV": done["worker SIGSEGV"] + 2 * poison,
        "killed by the watchdog": stopped,
        "jobs that did not stop when cancelled": len(ledger.jobs),
    }
    return [
        f"{what}: {number} times, explained {allowed.get(what, 0)} times"
        for what, number in found.items()
        if number > allowed.get(what, 0)
    ]
