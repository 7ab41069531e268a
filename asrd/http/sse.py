"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), as the
OpenAI API sends them: `data: {json}`, and at last `data: [DONE]`."""

import json
from typing import Any

import anyio
from starlette.types import Send

# Seconds in which a client must read what fills its connection.
READ_SECONDS = 30.0


class EventStream:
    """A response of events; its headers are sent with the first."""

    def __init__(self, send: Send, headers: dict[str, str]) -> None:
        self._send = send
        self._headers: dict[str, str] | None = headers

    async def send(self, event: dict[str, Any]) -> None:
        await self._data(json.dumps(event, ensure_ascii=False).encode())

    async def end(self) -> None:
        await self._data(b"[DONE]", last=True)

    async def fail(self, error: bytes) -> None:
        """Ends the stream with an error, which the official client raises."""
        await self._data(error, last=True)

    async def _data(self, data: bytes, last: bool = False) -> None:
        """Raises TimeoutError if the client does not read."""
        body = b"data: " + data + b"\n\n"
        with anyio.fail_after(READ_SECONDS):
            await self._start()
            await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    async def _start(self) -> None:
        if self._headers is None:
            return
        headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            # nginx would hold the events back.
            "x-accel-buffering": "no",
            **self._headers,
        }
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": pairs})
        # Not before: an error may have to begin the answer, if this was cancelled.
        self._headers = None
