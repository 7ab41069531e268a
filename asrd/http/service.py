"""The parts that all requests share: the settings, and the bounds of what they take."""

from collections.abc import Iterator
from contextlib import contextmanager

from asrd.client.asyncclient import AsyncClient
from asrd.http.errors import busy
from asrd.http.upload import UploadMemory
from asrd.quota import Quota
from asrd.settings import HttpSettings


class Service:
    """`draining`: the program will end, and takes no part in what a load balancer hands out."""

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self.draining = False
        # Half of everything is left for the others.
        half = -(-settings.requests_max // 2)
        self._requests = Quota(settings.requests_max, half, "requests")
        half = max(settings.uploads_max_bytes // 2, settings.max_upload_bytes)
        self._memory = Quota(settings.uploads_max_bytes, half, "bytes of recordings")

    @property
    def full(self) -> bool:
        return self._requests.used >= self.settings.requests_max

    def client(self) -> AsyncClient:
        """Returns a client for one request. `busy` is the caller's answer: it is not waited out."""
        return AsyncClient(self.settings.socket, busy_timeout=0)

    @contextmanager
    def request(self, user: str) -> Iterator[UploadMemory]:
        """Counts a request for a transcript. Raises HttpError if there are too many."""
        full = self._requests.why_full(f"user {user}")
        if full is not None:
            raise busy(full, user)
        self._requests.add(f"user {user}", 1)
        try:
            with UploadMemory(self._memory, user, self.settings.max_upload_bytes) as memory:
                yield memory
        finally:
            self._requests.add(f"user {user}", -1)
