"""Counts of the answers by status, for /metrics, and log entries about strangers."""

import logging
import time
from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asrd.safe_text import escape
from asrd.wire.peer import Peer, named

log = logging.getLogger(__name__)

# Paths that are asked again and again, by programs that watch this one.
_CHECKS = {"/healthz", "/readyz", "/metrics", "/status"}
_STRANGERS = {401, 403}
# Log entries about strangers in a minute; who is refused could fill the log.
LOGGED_MAX = 10


class Responses:
    """The answers by status, other than those to health checks."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self._minute, self._in_minute, self.left_out = -1, 0, 0

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
        if status in _STRANGERS and self.may_log(time.monotonic()):
            peer: Peer = scope["state"]["peer"]
            what = f"{scope['method']} {scope['path'][:256]}"
            more = f"; {self.left_out} more before were not logged" if self.left_out else ""
            self.left_out = 0
            log.warning(
                "answered %d to %s: %s%s",
                status,
                named(peer.user),
                escape(what),
                more,
                extra={"fields": peer.log_fields},
            )

    def may_log(self, now: float) -> bool:
        """Counts one entry; False above the limit of a minute. `now` in seconds."""
        minute = int(now // 60)
        if minute != self._minute:
            self._minute, self._in_minute = minute, 0
        self._in_minute += 1
        if self._in_minute > LOGGED_MAX:
            self.left_out += 1
            return False
        return True
