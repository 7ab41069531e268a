"""The parts that all requests share: the settings, the bounds of what they take, and their end."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from asrd.client.asyncclient import AsyncClient
from asrd.errors import Code
from asrd.http.errors import HttpError, busy, unready
from asrd.http.log_limit import LogLimit
from asrd.http.responses import Responses
from asrd.http.upload import UploadMemory
from asrd.quota import Quota
from asrd.settings import HttpSettings
from asrd.wire.peer import User, named

# Connections besides two for each of `requests_max`. One peer may have half of them all, so a proxy
# still has one for each request.
OTHERS_MAX = 256
# Connections at once that get an error in place of their answer. All others are cut off.
REFUSED_MAX = 64
# The used part of the memory for recordings from which on it counts as full.
_FULL_SHARE = 15 / 16


def descriptors(settings: HttpSettings) -> int:
    """Returns how many descriptors clients may need: for each request its recording twice and the
    daemon, and all connections; some are the program's own."""
    return 5 * settings.requests_max + OTHERS_MAX + REFUSED_MAX + 32


class Service:
    """`draining`: the program will end, and takes no part in what a load balancer hands out.

    `uploads` and `answers` are the two parts of requests for a transcript; `leavers` limits the log
    entries about clients that leave before the end.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self.draining = False
        self.responses = Responses()
        self.uploads, self.answers = Part(), Part()
        self.leavers = LogLimit()
        # Half of everything is left for the others.
        half = -(-settings.requests_max // 2)
        self._requests = Quota(settings.requests_max, half, "requests")
        half = max(settings.uploads_max_bytes // 2, settings.max_upload_bytes)
        self._memory = Quota(settings.uploads_max_bytes, half, "bytes of recordings")
        half = settings.requests_max + OTHERS_MAX // 2
        self._connections = Quota(2 * half, half, "connections")
        self._refused = Quota(REFUSED_MAX, 0, "refused connections")

    @property
    def full(self) -> bool:
        return self._requests.used >= self.settings.requests_max

    @property
    def memory_full(self) -> bool:
        """True if little is left: a recording that does not fit gives back what it has taken, so
        that all of it is hardly ever used."""
        return self._memory.used > _FULL_SHARE * self._memory.limit

    def client(self) -> AsyncClient:
        """Returns a client for one request. `busy` is the caller's answer: it is not waited out."""
        return AsyncClient(self.settings.socket, busy_timeout=0)

    def place(self, peer: User) -> tuple[Quota | None, HttpError | None]:
        """Returns what a new connection counts in, None if it must be cut off, and the error that
        is its answer."""
        full = self._connections.why_full(peer)
        if full is None:
            return self._connections, None
        place = None if self._refused.why_full(peer) else self._refused
        return place, busy(full, named(peer))

    @contextmanager
    def request(self, user: str) -> Iterator[UploadMemory]:
        """Counts a request for a transcript. Raises HttpError if there are too many."""
        full = self._requests.why_full(f"user {user}")
        if full is not None:
            raise busy(full, f"user {user}")
        self._requests.add(f"user {user}", 1)
        try:
            with UploadMemory(self._memory, user, self.settings.max_upload_bytes) as memory:
                yield memory
        finally:
            self._requests.add(f"user {user}", -1)


class Part:
    """A part of each request, which the end of the program may end."""

    def __init__(self) -> None:
        self._scopes: set[anyio.CancelScope] = set()
        self._ended = False

    def end(self) -> None:
        """Ends this part of all requests, also of those to come."""
        self._ended = True
        for scope in self._scopes:
            scope.cancel()

    @contextmanager
    def running(self) -> Iterator[None]:
        """The block raises HttpError if `end` ends it."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            if self._ended:
                scope.cancel()
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise unready("asrd-http is stopping", Code.SHUTTING_DOWN)
