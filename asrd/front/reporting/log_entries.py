"""The front's log entries about refused requests and crashed workers."""

import logging
import math
from collections.abc import Mapping

from asrd.front.reporting.crashes import Crash
from asrd.front.scheduling.actions import Failure

log = logging.getLogger(__name__)


class Refusals:
    """Logs one refusal a second: neither overload nor a broken client may flood the journal."""

    def __init__(self) -> None:
        self.logged_at = -math.inf
        self._unlogged = 0

    def add(self, failure: Failure, fields: Mapping[str, object], now: float) -> None:
        if now < self.logged_at + 1:
            self._unlogged += 1
            return
        text = f"{failure.code}: {failure.text}"
        if self._unlogged:
            text += f" ({self._unlogged} others since the last that was logged)"
        log.info("refused: %s", text, extra={"fields": fields})
        self.logged_at, self._unlogged = now, 0


def crash(crash: Crash, how: str, detail: str) -> None:
    """Logs an entry for each job that ran, so that `journalctl ASRD_JOB_ID=` finds it."""
    fields = {"ASRD_WORKER": crash.worker, "ASRD_WORKER_PID": crash.pid, "ASRD_EXIT": crash.exit}
    for job in crash.jobs:
        running = f"running {job}{detail}"
        extra = {"fields": {**fields, **job.log_fields}}
        log.warning("worker %s: %s, %s", crash.worker, how, running, extra=extra)
    if not crash.jobs:
        doing = f"{crash.workless}{detail}"
        log.warning("worker %s: %s, %s", crash.worker, how, doing, extra={"fields": fields})


def done(
    fields: Mapping[str, object], audio_seconds: float, wait: float, run: float, worker: str | None
) -> None:
    """All times are in seconds."""
    text = "done: %.1f s of audio, waited %.3f s, ran %.3f s on worker %s"
    log.info(text, audio_seconds, wait, run, worker, extra={"fields": fields})
