"""Counts of the answers by status, for /metrics, and log entries about strangers."""

import logging
from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asrd.http.log_limit import LogLimit
from asrd.safe_text import escape
from asrd.wire.peer import Peer, named

log = logging.getLogger(__name__)

# Paths that are asked again and again, by programs that watch this one.
_CHECKS = {"/healthz", "/readyz", "/metrics", "/status"}
_STRANGERS = {401, 403}


class Responses:
    """The answers by status, other than those to health checks."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self._log_limit = LogLimit()

    def count(self, status: int) -> None:
        self.counts[status] += 1

    def of(self, app: ASGIApp) -> ASGIApp:
        """Returns the application with its answers counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._started(scope, message["status"])
                await send(message)

            await app(scope, receive, send_counted)

        return counted

    def _started(self, scope: Scope, status: int) -> None:
        if scope["path"] not in _CHECKS:
            self.count(status)
        if status in _STRANGERS and (left_out := self._log_limit.next()) is not None:
            peer: Peer = scope["state"]["peer"]
            what = escape(f"{scope['method']} {scope['path'][:256]}")
            values, fields = (status, named(peer.user), what, left_out), peer.log_fields
            log.warning("answered %d to %s: %s%s", *values, extra={"fields": fields})
