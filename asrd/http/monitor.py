"""`/healthz`, `/readyz`, `/status`, `/metrics` and the list of models."""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from asrd.client.asyncclient import AsyncClient
from asrd.errors import AsrdError, Code
from asrd.http.errors import HttpError, unready
from asrd.http.service import Service
from asrd.prometheus import OPENMETRICS_TYPE, TEXT_TYPE, metrics, wants_openmetrics
from asrd.snapshot import Snapshot, read_snapshot

# A load balancer waits no longer for an answer.
_ANSWER_SECONDS = 2.0
# The daemon itself waits for a worker that only just connects.
_DESCRIBE_SECONDS = 10.0
_SERVING = {"ready", "busy", "asleep"}

_T = TypeVar("_T")


class Monitor:
    """The questions about the daemon's state; each asks the daemon."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._started = int(time.time())

    async def healthz(self, request: Request) -> Response:
        """200 while the daemon answers."""
        try:
            await self._ask(AsyncClient.ping)
        except AsrdError as error:
            return PlainTextResponse(f"{error}\n", 503)
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """200 while one more request would be served now."""
        try:
            why = self._why_not_ready(read_snapshot(await self._ask(AsyncClient.status)))
        except AsrdError as error:
            why = str(error)
        return PlainTextResponse(f"{why or 'ready'}\n", 200 if why is None else 503)

    def _why_not_ready(self, snapshot: Snapshot) -> str | None:
        if self._service.draining:
            return "asrd-http is stopping"
        if self._service.full:
            return "asrd-http has as many requests as it takes"
        if self._service.memory_full:
            return "the memory for recordings is full"
        writing = [worker for worker in snapshot.workers if not worker.speakers]
        if not any(worker.state in _SERVING for worker in writing):
            return "no worker is ready"
        if snapshot.queue.depth >= snapshot.queue.max:
            return "the queue is full"
        return None

    async def status(self, request: Request) -> Response:
        """The daemon's snapshot, without what concerns single jobs."""
        found = await self._ask(AsyncClient.status)
        for worker in found.get("workers", ()):
            worker["last_death"] = None
            for job in worker.get("jobs", ()):
                job |= {"job_id": None, "audio_seconds": None, "audio_seconds_done": None}
        return JSONResponse(found)

    async def metrics(self, request: Request) -> Response:
        """All metrics, in the format that the client accepts; without the daemon, our own alone."""
        openmetrics = wants_openmetrics(", ".join(request.headers.getlist("accept")))
        snapshot = None
        with suppress(AsrdError):
            snapshot = read_snapshot(await self._ask(AsyncClient.status))
        text = metrics(snapshot, openmetrics, self._service.responses.counts)
        kind = OPENMETRICS_TYPE if openmetrics else TEXT_TYPE
        return Response(text, headers={"Content-Type": kind, "Vary": "Accept"})

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": await self._models()})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        for model in await self._models():
            if model["id"] == name:
                return JSONResponse(model)
        text = f"the model {name[:256]!r} does not exist"
        raise HttpError(404, text, code="model_not_found", param="model")

    async def _ask(
        self, ask: Callable[[AsyncClient], Awaitable[_T]], seconds: float = _ANSWER_SECONDS
    ) -> _T:
        """Raises AsrdError, also if no answer comes in time."""
        try:
            with anyio.fail_after(seconds):
                async with self._service.client() as client:
                    return await ask(client)
        except TimeoutError:
            raise unready("the daemon does not answer", Code.UNAVAILABLE) from None

    async def _models(self) -> list[dict[str, Any]]:
        """The models that workers have, and their other names."""
        info = await self._ask(AsyncClient.describe, _DESCRIBE_SECONDS)
        own = [model["name"] for program in info["asr"] for model in program["models"]]
        aliases = self._service.settings.model_aliases
        others = [alias for alias, name in aliases.items() if (not name and own) or name in own]
        return [
            {"id": name, "object": "model", "created": self._started, "owned_by": "asrd"}
            for name in dict.fromkeys(own + others)
        ]
