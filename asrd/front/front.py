"""The front's core: feeds the scheduler and performs its actions.

Every event of a client (session.py) or a worker (worker_connection.py) ends in a call of the
scheduler, and only `_perform` acts on its answers. server.py owns the listeners and signals.
"""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio
from anyio.abc import TaskGroup

from asrd.errors import Code
from asrd.front.announcements import Announcements, skills_of
from asrd.front.discovery import WorkerDirectory
from asrd.front.doors import doors
from asrd.front.gateways import Gateways
from asrd.front.reporting import log_entries
from asrd.front.reporting.crash_file import CrashFile
from asrd.front.reporting.crashes import Crash, Crashes
from asrd.front.reporting.log_entries import Refusals
from asrd.front.reporting.metrics import Metrics
from asrd.front.request import Client, Request
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
from asrd.front.scheduling.scheduler import SHUTTING_DOWN, Scheduler
from asrd.front.scheduling.workers import UNKNOWN, Worker, WorkerState
from asrd.front.transcripts import Kept, Transcripts, answer_of, too_large
from asrd.front.unanswered import Unanswered
from asrd.front.worker_connection import Broken, WorkerConnection
from asrd.quota import Quota
from asrd.settings import FrontSettings
from asrd.wire.peer import Peer
from asrd.wire.worker_events import (
    Done,
    Failed,
    Hello,
    JobProgress,
    JobState,
    JobWindow,
    Loading,
    StartJob,
)

log = logging.getLogger(__name__)

# The codes that a worker may answer. It knows nothing of queues and deadlines, and must not report
# that somebody cancelled.
_WORKERS_CODES = {Code.BAD_REQUEST, Code.BAD_AUDIO, Code.TOO_LARGE, Code.OUT_OF_MEMORY}
_WORKERS_CODES |= {Code.INTERNAL, Code.SHUTTING_DOWN}


class Front:
    def __init__(self, settings: FrontSettings, buffer: memoryview) -> None:
        """`buffer`: see Connection."""
        self.settings = settings
        self.scheduler = Scheduler(settings)
        self.metrics = Metrics()
        self.crashes = Crashes()
        self.spool = Quota(
            settings.spool_max_bytes, settings.spool_max_bytes_per_user, "bytes of inline audio"
        )
        self.doors = doors(settings, self.spool)
        # To the workers, by name.
        self.connections: dict[str, WorkerConnection] = {}
        self.announcements = Announcements(self.scheduler.workers, self.connections)
        self.clients: set[Client] = set()
        self.started_at = 0.0
        self.gateways = Gateways(settings.gateways)
        self.transcripts = Transcripts(settings.transcripts_max_bytes)
        self.unanswered = Unanswered(settings.jobs_max_per_user)
        self._directory = WorkerDirectory(settings.worker_dir)
        self._buffer = buffer
        self._refusals = Refusals()
        self._timer_due = 0.0
        self._timer_changed = anyio.Event()
        self._idle = anyio.Event()
        self._due: deque[Action] = deque()
        self._performing = False
        self._tasks: TaskGroup

    # --- the daemon's life --------------------------------------------------------------------

    def start(self, tasks: TaskGroup) -> None:
        """Starts to look for workers, and to watch the deadlines, in `tasks`."""
        self._tasks = tasks
        self.started_at = anyio.current_time()
        file = CrashFile(self.settings.crash_file)
        self.crashes.keep(file.read(self.started_at), file.write)
        tasks.start_soon(self._timer)
        self.find_workers()

    def go_on(self) -> None:
        """Starts jobs again after `scheduler.suspended`."""
        self.scheduler.suspended = False
        self._perform(self.scheduler.tick(anyio.current_time()))

    async def drain(self) -> None:
        """Accepts no more jobs, and waits until those accepted have their answers. Live streams
        end: nobody knows how long somebody will speak."""
        self.unanswered.fail_streams(SHUTTING_DOWN)
        self._perform(self.scheduler.drain(anyio.current_time()))
        await self._idle.wait()

    async def _timer(self) -> None:
        while True:
            self._timer_due = self.scheduler.next_deadline()
            self._timer_changed = anyio.Event()
            with anyio.CancelScope(deadline=self._timer_due):
                await self._timer_changed.wait()
            self._perform(self.scheduler.tick(anyio.current_time()))

    # --- calls from sessions --------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        if not self.scheduler.workers:
            # Right after an installation the sockets may be newer than the last look for them.
            self.find_workers()
        full = None if request.job.step else self.unanswered.why_full(request.user)
        if full is not None:
            self.refuse(request, full)
            return
        self._perform(self.scheduler.submit(request.job, anyio.current_time()))

    def refuse(self, request: Request, full: str) -> None:
        """Refuses a request that the scheduler never sees: its user or client has too many."""
        later = self.scheduler.admission.retry_after_ms(request.job, anyio.current_time())
        failure = Failure(Code.BUSY, full, retry_after_ms=later)
        self._perform([Refuse(request.job, failure)])

    def cancel(self, request: Request, failure: Failure) -> None:
        self._perform(self.scheduler.end(request.job, failure, anyio.current_time()))

    def cancel_foreign(self, peer: Peer, job_id: str) -> int:
        """Ends the jobs with that id on all connections that `peer` may see. Returns their number,
        which says nothing about other users' jobs."""
        failure = Failure(Code.CANCELLED, "the job was cancelled from another connection")
        visible = [client for client in self.clients if peer.may_see(client.peer)]
        return sum(client.cancel(job_id, failure) for client in visible)

    def count_refusal(self, peer: Peer, failure: Failure) -> None:
        """Counts and logs a request that was not accepted."""
        self.metrics.refused[failure.code.value] += 1
        self._refusals.add(failure, peer.log_fields, anyio.current_time())

    # --- workers --------------------------------------------------------------------------------

    def find_workers(self) -> None:
        """Connects to each worker whose socket is there."""
        found = self._directory.look()
        now = anyio.current_time()
        for name in sorted(found.keys() - self.connections.keys()):
            log.info("worker %s: its socket was found", name)
            connection = WorkerConnection(name, found[name], self, self._tasks, self._buffer)
            self.connections[name] = connection
            self._perform(self.scheduler.worker_added(name, now))
            self._tasks.start_soon(connection.run)
        for name, worker in list(self.scheduler.workers.items()):
            if name in found and worker.retired:
                self._perform(self.scheduler.worker_added(name, now))
            elif name not in found:
                self._retire(worker, now)

    def _retire(self, worker: Worker, now: float) -> None:
        """A worker whose socket is gone keeps its connection until its jobs are answered."""
        if not worker.retired:
            self._perform(self.scheduler.worker_retired(worker.name, now))
        if not worker.jobs:
            log.info("worker %s: removed", worker.name)
            self._perform(self.scheduler.worker_removed(worker.name, now))
            self.connections.pop(worker.name).close()

    def worker_loading(self, connection: WorkerConnection, loading: Loading) -> None:
        now, skills = anyio.current_time(), skills_of(loading)
        self._perform(self.scheduler.worker_loading(connection.name, loading.model, now, skills))
        self.announcements.note()

    def worker_ready(self, connection: WorkerConnection, hello: Hello) -> None:
        name, skills = connection.name, skills_of(hello) or UNKNOWN
        now, longest = anyio.current_time(), hello.max_audio_seconds
        log.info("worker %s: ready in %.2f s (pid %s)", name, hello.load_seconds, hello.pid)
        self._perform(
            self.scheduler.worker_ready(
                name, hello.model, now, hello.spare, skills, hello.slots, longest
            )
        )
        self.announcements.note()

    def worker_lost(self, connection: WorkerConnection, crash: Crash, turn: int) -> None:
        self.crashes.add(crash)
        log_entries.crash(crash, f"lost: {crash.noticed}", "")
        how = self.crashes.in_words(crash)
        self._perform(self.scheduler.worker_lost(crash.worker, how, crash.at, turn))

    def worker_explained(self, connection: WorkerConnection, crash: Crash) -> None:
        """The next process has reported how the one before it ended."""
        self.crashes.save()
        detail = "" if crash.stderr is None else f"; its last output on stderr: {crash.stderr}"
        log_entries.crash(crash, f"pid {crash.pid}: {crash.exit or 'ended'}", detail)

    def worker_left(self, connection: WorkerConnection, asleep: bool) -> None:
        doing = "asleep" if asleep else connection.info.ended or "stopping"
        log.info("worker %s: %s", connection.name, doing)
        self._perform(self.scheduler.worker_left(connection.name, asleep, anyio.current_time()))

    def worker_failed(self, connection: WorkerConnection, down: bool, reason: str) -> None:
        log.error("worker %s: %s", connection.name, reason)
        state = WorkerState.DOWN if down else WorkerState.FAILED
        now = anyio.current_time()
        self._perform(self.scheduler.worker_failed(connection.name, state, reason, now))
        self.announcements.note()

    def job_states(self, connection: WorkerConnection, states: tuple[JobState, ...]) -> None:
        now = anyio.current_time()
        for state in states:
            self._perform(
                self.scheduler.job_state(
                    connection.name,
                    state.key,
                    state.work_seconds,
                    state.audio_seconds_done,
                    state.audio_seconds,
                    now,
                )
            )

    def job_window(self, connection: WorkerConnection, event: JobWindow) -> None:
        request = self._running(connection, event.key)
        if request is None:
            return
        wrong = request.why_wrong(event)
        if wrong is not None:
            raise Broken(f"window: {wrong}")
        self.scheduler.job_moved(connection.name, event.key, event.checkpoint.seconds)
        request.checkpoint = event.checkpoint
        request.job.model = connection.info.model
        self._stream_out(request, event)
        self.keep(request, event.text, event.segments)

    def keep(self, kept: Kept, text: str, segments: Sequence[dict[str, Any]]) -> None:
        """Keeps a finished part of a transcript; ends those that are too large."""
        self.transcripts.add(kept, text, segments)
        failure = too_large(kept.finished.size)
        excess = (kept, failure) if failure is not None else self.transcripts.excess()
        while excess is not None:
            largest, failure = excess
            if isinstance(largest, Request):
                self.cancel(largest, failure)
            else:
                largest.fail(failure)
            self.transcripts.drop(largest)
            excess = self.transcripts.excess()

    def _stream_out(self, request: Request, event: JobWindow | Done) -> None:
        """A streaming client gets segments at once, and just once, since no later attempt repeats
        them."""
        if request.stream:
            for index, segment in enumerate(event.segments, request.finished.count):
                request.client.segment(request, index, segment)

    def job_progress(self, connection: WorkerConnection, event: JobProgress) -> None:
        request = self._running(connection, event.key)
        if request is not None:
            request.client.progress(request, event)

    def job_done(self, connection: WorkerConnection, event: Done) -> None:
        now, work, length = anyio.current_time(), event.run_seconds, event.audio_seconds
        name, key = connection.name, event.key
        request = self._running(connection, key)
        if request is not None and event.language is None and request.job.needs.text:
            raise Broken("done: language: is missing")
        self._perform(self.scheduler.job_done(name, key, event, now, work, length))

    def job_failed(self, connection: WorkerConnection, event: Failed) -> None:
        failure = Failure(Code.INTERNAL, f"its worker answered {event.code}: {event.text}")
        if event.code in _WORKERS_CODES:
            failure = Failure(Code(event.code), event.text)
        now = anyio.current_time()
        self._perform(
            self.scheduler.job_failed(connection.name, event.key, failure, now, fatal=event.fatal)
        )

    def _running(self, connection: WorkerConnection, key: int) -> Request | None:
        """Returns the request under this key; None if its client no longer waits."""
        job = self.scheduler.running_on(connection.name, key)
        return None if job is None else job.request

    # --- the scheduler's actions ------------------------------------------------------------------

    def _perform(self, actions: list[Action]) -> None:
        """One after another, also if a client's answer leads to more: that may end a job whose
        start is still to come."""
        self._due += actions
        if self._performing:
            return
        self._performing = True
        try:
            while self._due:
                self._perform_one(self._due.popleft())
        finally:
            self._performing = False
        if self.scheduler.next_deadline() < self._timer_due:
            self._timer_changed.set()
        if self.scheduler.draining and self.scheduler.idle:
            self._idle.set()

    def _perform_one(self, action: Action) -> None:
        match action:
            case Accept(job, depth):
                if job.step:
                    self.metrics.live_steps += 1
                else:
                    self.metrics.accepted += 1
                    self.unanswered.add(job.user)
                job.request.client.accepted(job.request, depth)
            case Refuse(job, failure):
                if not job.step:
                    self.count_refusal(job.request.owner, failure)
                job.request.close()
                job.request.client.failed(job.request, failure)
            case Start():
                self._start(action)
            case Finish(job, Failure() as failure):
                self._give_up(job.request, failure)
            case Finish(job, done):
                self._deliver(job.request, done)
            case Abandon(worker, key):
                self.connections[worker].cancel(key)
            case Wake(worker):
                self.connections[worker].wake()

    def _start(self, start: Start) -> None:
        request, connection = start.job.request, self.connections[start.worker]
        resume = request.checkpoint
        self.metrics.resumed += resume is not None and not start.job.step
        if resume is not None and start.job.model != connection.info.model:
            # Another model has other tokens, and perhaps other languages.
            resume = replace(resume, tokens=(), language=None, language_probability=0.0)
        job = StartJob(
            key=start.key,
            job_id=request.job_id,
            trace_id=request.trace_id,
            audio=request.format,
            options=request.options,
            size=request.audio.size,
            stream=request.stream,
            max_audio_seconds=request.max_audio_seconds,
            resume=resume,
            suspect=start.job.deaths > 0,
        )
        connection.send_job(job, request.audio.fd.fileno(), request.ran())

    def _give_up(self, request: Request, failure: Failure) -> None:
        if not request.job.step:
            self.metrics.job_failed(failure.code, request.job.timeout is not None)
            text = f"{failure.code}: {failure.text}"
            log.info("failed: %s", text, extra={"fields": request.log_fields})
        self._end(request)
        request.client.failed(request, failure)

    def _end(self, request: Request) -> None:
        request.close()
        self.transcripts.drop(request)
        if not request.job.step:
            self.unanswered.remove(request.user)

    def _deliver(self, request: Request, done: Done) -> None:
        job, now = request.job, anyio.current_time()
        self._stream_out(request, done)
        self.transcripts.add(request, done.text, done.segments)
        model = self.scheduler.workers[job.worker or ""].model
        answer = answer_of(request, done, model, now)
        if isinstance(answer, Failure):
            self._give_up(request, answer)
            return
        # The answer comes first; the statistics can wait.
        request.client.finished(request, answer)
        self._end(request)
        if not job.step:
            self._count_done(request, done.audio_seconds, now)

    def _count_done(self, request: Request, seconds: float, now: float) -> None:
        job = request.job
        wait, run = job.started_at - job.arrival, now - job.started_at
        before = 0.0 if request.text is None else request.text.rest
        self.metrics.job_done(wait, run, seconds, now, before)
        self.connections[job.worker or ""].info.jobs_done += 1
        log_entries.done(request.log_fields, before + seconds, wait, run, job.worker)
