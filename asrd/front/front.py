"""The front's core: feeds the scheduler and performs its actions.

Every event of a client (session.py) or a worker (worker_connection.py) ends in a call of the
scheduler, and `_perform` is the only place that acts on its answers. asrd.front.server owns sockets
and signals.
"""

import logging
import os
import time
from typing import Any

import anyio
from anyio.abc import TaskGroup

from asrd.errors import Code
from asrd.front import request as answers
from asrd.front.discovery import WorkerDirectory
from asrd.front.reporting import log_entries, snapshot
from asrd.front.reporting.crashes import Crash, Crashes, JobRef
from asrd.front.reporting.log_entries import Refusals
from asrd.front.reporting.metrics import Metrics
from asrd.front.request import Request
from asrd.front.scheduling.actions import (
    Abandon,
    Accept,
    Action,
    Failure,
    Finish,
    Refuse,
    Start,
    Wake,
)
from asrd.front.scheduling.quota import Quota
from asrd.front.scheduling.scheduler import Scheduler
from asrd.front.scheduling.workers import UNKNOWN, Skills, Worker, WorkerState
from asrd.front.session import Session
from asrd.front.spool import JobAudio, SpooledAudio
from asrd.front.unanswered import Unanswered
from asrd.front.worker_connection import WorkerConnection
from asrd.settings import FrontSettings
from asrd.wire.client_events import Transcribe
from asrd.wire.peer import Peer, User, named
from asrd.wire.records import AudioFormat, Options
from asrd.wire.worker_events import Done, Failed, Hello, JobProgress, JobSegment, Loading, StartJob

log = logging.getLogger(__name__)

# What a worker may say of a job that is still wanted. It knows nothing of queues and deadlines, and
# must not tell a client that somebody cancelled.
_WORKERS_CODES = frozenset(
    {Code.BAD_REQUEST, Code.BAD_AUDIO, Code.TOO_LARGE, Code.OUT_OF_MEMORY, Code.INTERNAL}
)
_FROM_ELSEWHERE = "it was cancelled from another connection"


class Front:
    def __init__(self, settings: FrontSettings, buffer: memoryview) -> None:
        """`buffer`: see Connection."""
        self.settings = settings
        self.scheduler = Scheduler(settings)
        self.metrics = Metrics()
        self.crashes = Crashes()
        self.links: dict[str, WorkerConnection] = {}
        self.started_at = 0.0
        self.connections = 0
        self._directory = WorkerDirectory(settings.worker_dir)
        self.sessions: set[Session] = set()
        self._unanswered = Unanswered()
        self._spool = Quota(
            settings.spool_max_bytes, settings.spool_max_bytes_per_user, "bytes of inline audio"
        )
        self._buffer = buffer
        self._refusals = Refusals()
        self._timer_due = 0.0
        self._timer_changed = anyio.Event()
        self._idle = anyio.Event()
        self._known = anyio.Event()
        self._tasks: TaskGroup

    # --- the daemon's life --------------------------------------------------------------------

    def start(self, tasks: TaskGroup) -> None:
        """Look for workers, and keep the deadlines, in `tasks`."""
        self._tasks = tasks
        self.started_at = anyio.current_time()
        tasks.start_soon(self._timer)
        self.find_workers()

    async def drain(self) -> None:
        """Take no more jobs, and wait until those accepted have their answers."""
        self._perform(self.scheduler.drain(anyio.current_time()))
        await self._idle.wait()

    def _check_idle(self) -> None:
        if self.scheduler.draining and self.scheduler.idle:
            self._idle.set()

    async def _timer(self) -> None:
        while True:
            self._timer_due = self.scheduler.next_deadline()
            self._timer_changed = anyio.Event()
            with anyio.CancelScope(deadline=self._timer_due):
                await self._timer_changed.wait()
            self._perform(self.scheduler.tick(anyio.current_time()))

    # --- what sessions ask ----------------------------------------------------------------------

    def new_recording(self, user: User) -> SpooledAudio:
        return SpooledAudio(self._spool, user, self.settings.max_payload_bytes)

    def make_request(
        self,
        session: Session,
        asked: Transcribe,
        options: Options,
        format_: AudioFormat,
        audio: JobAudio,
    ) -> Request:
        return answers.make_request(
            session,
            asked,
            options,
            format_,
            audio,
            fresh_id=os.urandom(8).hex(),
            now=anyio.current_time(),
            max_audio_seconds=self.settings.max_audio_seconds,
        )

    def submit(self, request: Request) -> None:
        if not self.scheduler.workers:
            # Right after an installation the sockets may be newer than the last look for them.
            self.find_workers()
        full, now = self._why_full(request), anyio.current_time()
        if full is not None:
            later = self.scheduler.retry_after_ms(request.job, now)
            failure = Failure(Code.BUSY, full, retry_after_ms=later)
            self._perform([Refuse(request.job, failure)])
        else:
            self._perform(self.scheduler.submit(request.job, now))

    def _why_full(self, request: Request) -> str | None:
        limit, user = self.settings.jobs_max_per_connection, request.job.user
        if len(request.session.requests) > limit:
            return f"{limit} jobs of this connection are unanswered"
        limit = self.settings.jobs_max_per_user
        if limit and self._unanswered.count(user) >= limit:
            return f"{limit} jobs of {named(user)} are unanswered"
        return None

    def cancel(self, request: Request, why: str) -> None:
        failure = Failure(Code.CANCELLED, why)
        self._perform(self.scheduler.end(request.job, failure, anyio.current_time()))

    def cancel_foreign(self, peer: Peer, job_id: str) -> int:
        """End the jobs of that id that this user has on other connections (root: that anyone
        has), also those still recorded; how many is told, not whether others have such a job."""
        mine = list(self._unanswered.named(job_id, peer))
        for request in mine:
            self.cancel(request, _FROM_ELSEWHERE)
        recording = [s for s in self.sessions if peer.may_see(s.peer)]
        failure = Failure(Code.CANCELLED, _FROM_ELSEWHERE)
        return len(mine) + sum(s.cancel_recording(job_id, failure) for s in recording)

    def refused(self, session: Session, failure: Failure) -> None:
        """A request of a client was not accepted."""
        self.metrics.refused[failure.code.value] += 1
        self._refusals.add(failure, session.log_fields, anyio.current_time())

    def status(self, peer: Peer) -> dict[str, Any]:
        return snapshot.snapshot(self, peer, anyio.current_time())

    async def models_known(self) -> None:
        """Waits until each worker that may serve has reported what its model can do, or was silent
        for too long: right after the start of the daemon nothing is known."""
        while (until := snapshot.unknown_until(self)) > anyio.current_time():
            with anyio.CancelScope(deadline=until):
                await self._known.wait()

    def info(self) -> dict[str, Any]:
        return snapshot.info(self)

    # --- workers --------------------------------------------------------------------------------

    def find_workers(self) -> None:
        """Keep a link to each worker that there is."""
        found = self._directory.look()
        now = anyio.current_time()
        for name in sorted(found.keys() - self.links.keys()):
            log.info("worker %s: found", name)
            link = WorkerConnection(name, found[name], self, self._tasks, self._buffer)
            self.links[name] = link
            self._perform(self.scheduler.worker_added(name, now))
            self._tasks.start_soon(link.run)
        for name, worker in list(self.scheduler.workers.items()):
            if name in found and worker.retired:
                self._perform(self.scheduler.worker_added(name, now))
            elif name not in found:
                self._retire(worker, now)

    def _retire(self, worker: Worker, now: float) -> None:
        """A worker whose socket is gone keeps its connection until its job is answered."""
        if not worker.retired:
            self._perform(self.scheduler.worker_retired(worker.name, now))
        if worker.key is None:
            log.info("worker %s: removed", worker.name)
            self._perform(self.scheduler.worker_removed(worker.name, now))
            self.links.pop(worker.name).close()

    def worker_loading(self, link: WorkerConnection, loading: Loading) -> None:
        now, skills = anyio.current_time(), _skills(loading)
        self._perform(self.scheduler.worker_loading(link.name, loading.model, now, skills))
        self._something_is_known()

    def worker_ready(self, link: WorkerConnection, hello: Hello) -> None:
        log.info("worker %s: ready in %.2f s (pid %s)", link.name, hello.load_seconds, hello.pid)
        self._perform(
            self.scheduler.worker_ready(
                link.name,
                hello.model,
                anyio.current_time(),
                hello.spare,
                _skills(hello) or UNKNOWN,
            )
        )
        self._something_is_known()

    def _something_is_known(self) -> None:
        self._known.set()
        self._known = anyio.Event()

    def worker_lost(self, link: WorkerConnection, how: str, jobs: tuple[JobRef, ...]) -> None:
        name, info, now = link.name, link.info, anyio.current_time()
        crash = Crash(name, time.time(), now, how, jobs, info.pid, info.model)
        info.last_death = crash
        self.crashes.add(crash)
        log_entries.crash(crash, f"lost: {how}", "")
        how = f"worker {name}: {how}"
        self._perform(self.scheduler.worker_lost(name, how, now))

    def worker_explained(self, link: WorkerConnection, crash: Crash) -> None:
        """The next process has told what its service manager knows of the end of the one before."""
        said = "" if crash.stderr is None else f"; its last words: {crash.stderr}"
        log_entries.crash(crash, f"pid {crash.pid}: {crash.exit or 'ended'}", said)

    def worker_left(self, link: WorkerConnection, asleep: bool) -> None:
        log.info("worker %s: %s", link.name, "asleep" if asleep else "stopping")
        self._perform(self.scheduler.worker_left(link.name, asleep, anyio.current_time()))

    def worker_failed(self, link: WorkerConnection, down: bool, reason: str) -> None:
        log.error("worker %s: %s", link.name, reason)
        state = WorkerState.DOWN if down else WorkerState.FAILED
        now = anyio.current_time()
        self._perform(self.scheduler.worker_failed(link.name, state, reason, now))
        self._something_is_known()

    def job_segment(self, link: WorkerConnection, event: JobSegment) -> None:
        request = self._running(link, event.key)
        if request is not None:
            request.session.segment(request, event)

    def job_progress(self, link: WorkerConnection, event: JobProgress) -> None:
        request = self._running(link, event.key)
        if request is not None:
            request.session.progress(request, event)

    def job_done(self, link: WorkerConnection, event: Done) -> None:
        now = anyio.current_time()
        self._perform(self.scheduler.job_done(link.name, event.key, event, now))

    def job_failed(self, link: WorkerConnection, event: Failed) -> None:
        failure = Failure(Code.INTERNAL, f"its worker answered {event.code}: {event.text}")
        if event.code in _WORKERS_CODES:
            failure = Failure(Code(event.code), event.text)
        now = anyio.current_time()
        self._perform(
            self.scheduler.job_failed(link.name, event.key, failure, now, fatal=event.fatal)
        )

    def _running(self, link: WorkerConnection, key: int) -> Request | None:
        """The request under this key; None if nobody wants its answer any more."""
        job = self.scheduler.running_on(link.name, key)
        return None if job is None else job.request

    # --- what the scheduler wants done ------------------------------------------------------------

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Accept(job, depth):
                    self.metrics.accepted += 1
                    self._unanswered.add(job.request)
                    job.request.session.accepted(job.request, depth)
                case Refuse(job, failure):
                    self.refused(job.request.session, failure)
                    self._fail(job.request, failure)
                case Start():
                    self._start(action)
                case Finish(job, Failure() as failure):
                    self._give_up(job.request, failure)
                case Finish(job, done):
                    self._deliver(job.request, done)
                case Abandon(worker, key):
                    self.links[worker].cancel(key)
                case Wake(worker):
                    self.links[worker].wake()
        if self.scheduler.next_deadline() < self._timer_due:
            self._timer_changed.set()
        self._check_idle()

    def _start(self, start: Start) -> None:
        request, link = start.job.request, self.links[start.worker]
        log.debug("worker %s: started", link.name, extra={"fields": request.log_fields})
        job = StartJob(
            key=start.key,
            job_id=request.job_id,
            trace_id=request.trace_id,
            audio=request.format,
            options=request.options,
            size=request.audio.size,
            stream=request.stream,
            max_audio_seconds=self.settings.max_audio_seconds,
        )
        link.send_job(job, request.audio.fd.fileno(), request.ran())

    def _give_up(self, request: Request, failure: Failure) -> None:
        self.metrics.job_failed(failure.code, request.job.timeout is not None)
        text = f"{failure.code}: {failure.text}"
        log.info("failed: %s", text, extra={"fields": request.log_fields})
        self._fail(request, failure)

    def _fail(self, request: Request, failure: Failure) -> None:
        self._end(request)
        request.session.failed(request, failure)

    def _end(self, request: Request) -> None:
        request.audio.close()
        self._unanswered.remove(request)

    def _deliver(self, request: Request, done: Done) -> None:
        job, now = request.job, anyio.current_time()
        model = self.scheduler.workers[job.worker or ""].model
        # First the answer; the books can wait.
        request.session.finished(request, answers.transcript(request, done, model, now))
        self._end(request)
        wait, run = job.started_at - job.arrival, now - job.started_at
        self.metrics.job_done(wait, run, done.audio_seconds, now)
        log.info(
            "done: %.1f s of audio, waited %.3f s, ran %.3f s on worker %s",
            done.audio_seconds,
            wait,
            run,
            job.worker,
            extra={"fields": request.log_fields},
        )


def _skills(event: Loading | Hello) -> Skills | None:
    """None as long as the worker has not looked."""
    if not event.languages:
        return None
    return Skills(frozenset(event.languages), event.translate, event.word_timestamps)
