"""`POST /v1/audio/transcriptions` and `/v1/audio/translations`: upload, job, answer.

Each request has a connection of its own to the daemon. A client that hangs up, before or while its
job runs, ends that connection, and the daemon cancels the job.
"""

import itertools
import logging
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, BinaryIO, TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from asrd.client.asyncclient import AsyncClient, AsyncSegmentStream
from asrd.client.attempts import JobOptions
from asrd.client.speakers import Speakers, options_after, search_options
from asrd.errors import AsrdError
from asrd.http import answers, sse, tracing
from asrd.http.errors import response, unready
from asrd.http.form import Wanted, read_form
from asrd.http.guard import USER
from asrd.http.names import Names
from asrd.http.service import Service
from asrd.http.upload import Upload, UploadMemory, read_upload
from asrd.safe_text import escape

log = logging.getLogger(__name__)

_REFUSED = {400, 404, 408, 413, 429, 503}

_T = TypeVar("_T")


class Transcriptions:
    """The endpoint for one task, `transcribe` or `translate`; an ASGI application."""

    def __init__(self, service: Service, task: str) -> None:
        self._service = service
        self._task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(Request(scope, receive), send)
        try:
            await self._serve(exchange, receive)
        except ClientDisconnect:
            self._log_left(exchange, "the client hung up")
        except TimeoutError:
            self._log_left(exchange, "cut off: it does not read its answer")
            scope["state"]["abort"]()
        except anyio.get_cancelled_exc_class():
            # Only the end of the event loop does this: an admin did not want to wait for requests.
            exchange.log("cut off: the program ends")
            scope["state"]["abort"]()

    def _log_left(self, exchange: "_Exchange", how: str) -> None:
        left_out = self._service.leavers.next()
        if left_out is not None:
            exchange.log(f"{how}%s", left_out)

    async def _serve(self, exchange: "_Exchange", receive: Receive) -> None:
        """Raises ClientDisconnect, TimeoutError."""
        try:
            with (
                self._service.request(exchange.user) as memory,
                await self._upload(exchange, memory) as upload,
            ):
                exchange.names = Names(name for name, _ in upload.fields)
                aliases = self._service.settings.model_aliases
                wanted = read_form(upload.fields, self._task, aliases)
                exchange.ignored(wanted)
                with self._service.answers.running():
                    answer = await _unless_gone(
                        receive, partial(self._answer, exchange, upload, wanted)
                    )
                await exchange.finish(answer)
        except TimeoutError:
            raise
        except OSError as error:
            await exchange.fail(unready(f"out of resources: {error.strerror}"))
        except AsrdError as error:
            await exchange.fail(error)

    async def _upload(self, exchange: "_Exchange", memory: UploadMemory) -> Upload:
        """Raises HttpError, ClientDisconnect."""
        with self._service.uploads.running():
            seconds = self._service.settings.upload_max_seconds
            return await read_upload(exchange.request, memory, seconds)

    async def _answer(
        self, exchange: "_Exchange", upload: Upload, wanted: Wanted
    ) -> Response | None:
        """Returns the answer, None for a stream whose events were sent. Raises AsrdError."""
        options = wanted.options | exchange.job_options
        async with self._service.client() as client:
            with open(upload.file.fileno(), "rb", buffering=0, closefd=False) as file:
                speakers = None
                if wanted.speakers:
                    speakers, options = await _find_speakers(client, file, wanted, options)
                if not wanted.stream:
                    transcript = await client.transcribe(file, **options)
                    if speakers is not None:
                        transcript = speakers.transcript(transcript)
                    return _whole(*answers.body(transcript, wanted))
                events = answers.events_of(wanted)
                options["on_progress"] = events.progress
                async with client.stream(file, **options) as segments:
                    await exchange.stream(segments, events, speakers)
                return None


async def _find_speakers(
    client: AsyncClient, file: BinaryIO, wanted: Wanted, options: JobOptions
) -> tuple[Speakers, JobOptions]:
    """Returns the recording's speakers, and the options for what is left of the time. Raises
    AsrdError."""
    began = anyio.current_time()
    search = search_options(options, wanted.num_speakers)
    turns = (await client.transcribe(file, **search)).segments
    return Speakers(turns), options_after(options, anyio.current_time() - began)


def _whole(content: Any, media_type: str) -> Response:
    if media_type == "application/json":
        return JSONResponse(content)
    return Response(content, media_type=media_type)


async def _unless_gone(receive: Receive, work: Callable[[], Awaitable[_T]]) -> _T:
    """Returns the result of `work`. Raises ClientDisconnect if the client hangs up before it is
    there, AsrdError, OSError."""
    results: list[_T] = []
    failure: AsrdError | OSError | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_when_gone, receive, tasks.cancel_scope)
        try:
            results.append(await work())
        except (AsrdError, OSError) as error:
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if not results:
        raise ClientDisconnect
    return results[0]


async def _cancel_when_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


class _Exchange:
    """One request and its answer: headers, log entries, and an error before or in a stream."""

    def __init__(self, request: Request, send: Send) -> None:
        self.user: str = request.scope[USER]
        self.request = request
        self.names = Names()
        self._send = send
        self._events: sse.EventStream | None = None
        trace_id, traceparent = tracing.read(request.headers.get("traceparent", ""))
        job_id = os.urandom(8).hex()
        self.job_options: Any = {"job_id": job_id, "user": self.user, "trace_id": trace_id}
        self._headers = {"x-request-id": job_id}
        if traceparent is not None:
            self._headers["traceparent"] = traceparent

    def ignored(self, wanted: Wanted) -> None:
        if wanted.ignored:
            names = escape(", ".join(wanted.ignored)[:1000])
            self._headers["x-ignored-fields"] = names.encode("ascii", "backslashreplace").decode()

    async def finish(self, answer: Response | None) -> None:
        if answer is not None:
            await self.send(answer)
        elif self._events is not None:
            await self._events.end()
            self.log("answered 200, a stream")

    async def send(self, answer: Response) -> None:
        answer.headers.update(self._headers)
        # Refusals could fill the log.
        level = logging.DEBUG if answer.status_code in _REFUSED else logging.INFO
        self.log("answered %d", answer.status_code, level=level)
        with anyio.fail_after(sse.READ_SECONDS):
            await answer(self.request.scope, self.request.receive, self._send)

    async def stream(
        self, segments: AsyncSegmentStream, made: answers.Events, speakers: Speakers | None
    ) -> None:
        """Sends the events. Nothing is sent before the first text or the end, so that a
        refusal is still a status."""
        events = sse.EventStream(self._send, self._headers)
        async for segment in segments:
            parts = [segment] if speakers is None else speakers.label(segment)
            for event in itertools.chain.from_iterable(map(made.add, parts)):
                self._events = events
                await events.send(event)
        self._events = events
        await events.send(made.done(segments.transcript))

    async def fail(self, error: AsrdError) -> None:
        answer = response(error, self.user, self.names)
        if self._events is None:
            await self.send(answer)
            return
        self.log("failed in a stream: %s", error)
        await self._events.fail(bytes(answer.body))

    def log(self, text: str, *values: object, level: int = logging.INFO) -> None:
        fields = {"ASRD_JOB_ID": self.job_options["job_id"], "ASRD_USER": self.user}
        if self.job_options["trace_id"] is not None:
            fields["ASRD_TRACE_ID"] = self.job_options["trace_id"]
        log.log(level, text, *values, extra={"fields": fields})
