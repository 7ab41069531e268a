"""The bounds of what all requests, and those of one user, may take."""

import json
from contextlib import ExitStack
from typing import Any

import anyio
import pytest

from asrd.http.app import make_app
from asrd.http.errors import HttpError
from asrd.http.service import OTHERS_MAX, REFUSED_MAX, Service
from asrd.settings import HttpSettings
from asrd.wire.peer import Peer

KIB = 1 << 10


def test_one_user_has_half_of_the_requests() -> None:
    service = Service(HttpSettings(requests_max=4))
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(service.request("alice"))
        with pytest.raises(HttpError) as caught, service.request("alice"):
            pass
        assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
        for _ in range(2):
            stack.enter_context(service.request("bob"))
        assert service.full
        with pytest.raises(HttpError) as caught, service.request("carol"):
            pass
        assert (caught.value.status, caught.value.code) == (503, "busy")
    with service.request("carol"):
        assert not service.full


def test_one_peer_has_half_of_the_connections() -> None:
    service = Service(HttpSettings(requests_max=1))
    half = 1 + OTHERS_MAX // 2

    def fill(peer: int) -> HttpError | None:
        for _ in range(half):
            place, error = service.place(peer)
            assert place is not None and error is None
            place.add(peer, 1)
        return service.place(peer)[1]

    refused = fill(1000)
    assert refused is not None and (refused.status, refused.code) == (429, "rate_limit_exceeded")
    refused = fill(1001)
    assert refused is not None and (refused.status, refused.code) == (503, "busy")
    for _ in range(REFUSED_MAX):
        place, refused = service.place(1002)
        assert place is not None and refused is not None
        place.add(1002, 1)
    assert service.place(1002)[0] is None


@pytest.mark.parametrize("where", ["guard", "endpoint"])
def test_bug_is_an_error_of_the_api_and_counted(where: str) -> None:
    service = Service(HttpSettings())
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    def broken() -> Any:
        raise RuntimeError

    service.client = broken  # type: ignore[method-assign]
    peer = Peer(1, 1000, 1000) if where == "endpoint" else None
    state = {"peer": peer, "refusal": None}
    scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": [], "state": state}
    with pytest.raises((RuntimeError, AttributeError)):
        # Raised again for the log.
        anyio.run(make_app(service, None), scope, receive, send)
    start, body = sent
    assert start["status"] == 500 and (b"x-should-retry", b"false") in start["headers"]
    assert json.loads(body["body"])["error"]["type"] == "server_error"
    assert service.responses.counts == {500: 1}


def test_one_user_has_half_of_the_memory_and_at_least_one_recording() -> None:
    settings = HttpSettings(max_upload_bytes=64 * KIB, uploads_max_bytes=96 * KIB)
    service = Service(settings)
    with service.request("alice") as one, service.request("alice") as two:
        one.take(64 * KIB)
        with pytest.raises(HttpError) as caught:
            one.take(1)
        assert caught.value.status == 413
        with pytest.raises(HttpError) as caught:
            two.take(1)
        assert caught.value.status == 429
        with service.request("bob") as three:
            three.take(32 * KIB)
            with pytest.raises(HttpError) as caught:
                three.take(1)
            assert caught.value.status == 503
    with service.request("alice") as one:
        one.take(64 * KIB)
