"""The checks before a request is served: whose it is, and whether a browser was tricked into it.

A page of another site can make a browser send requests to any address (CSRF), and with a name of
its own that leads to this host even read the answers (DNS rebinding). The first is refused by what
the browser says about the page, the second by the name in `Host`.
"""

import ipaddress
from collections.abc import Iterable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from asrd.http.errors import HttpError, response
from asrd.http.keys import Keys
from asrd.wire.peer import Peer

# The key of a scope under which the user's name is.
USER = "asrd.user"
# Paths that need no key: the page, which asks for one, and what load balancers ask.
_OPEN = {"/", "/healthz", "/readyz"}


class Guard:
    """Passes on requests that are allowed, with their user in the scope."""

    def __init__(self, app: ASGIApp, keys: Keys | None, hosts: Iterable[str]) -> None:
        self._app = app
        self._keys = keys
        self._hosts = {host.casefold() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        peer: Peer = scope["state"]["peer"]
        try:
            if scope["state"]["refusal"] is not None:
                raise scope["state"]["refusal"]
            # No browser can reach a Unix socket by itself, and a proxy passes any name on.
            if peer.uid is None:
                self._check_host(request)
            if request.method not in ("GET", "HEAD"):
                _check_origin(request)
            scope[USER] = self._user(request, peer)
        except HttpError as error:
            answer = response(error)
            if error is scope["state"]["refusal"]:
                answer.headers["connection"] = "close"
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _check_host(self, request: Request) -> None:
        name = _name(request.headers.get("host", ""))
        if "*" in self._hosts or name in self._hosts or _is_local(name):
            return
        text = f"this server has no name {name[:255]!r}: add it to `hosts` in [http]"
        raise HttpError(403, text, code="forbidden")

    def _user(self, request: Request, peer: Peer) -> str:
        if self._keys is None:
            return f"uid:{peer.uid}" if peer.uid is not None else f"address:{peer.address}"
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        user = self._keys.user(key.strip()) if scheme.casefold() == "bearer" else None
        if user is None and request.scope["path"] not in _OPEN:
            text = "a valid API key is needed: send `Authorization: Bearer KEY`"
            raise HttpError(401, text, code="invalid_api_key")
        return user or ""


def _check_origin(request: Request) -> None:
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        allowed = site in ("same-origin", "none")
    else:
        # Browsers say nothing about the site over plain HTTP, other than to localhost.
        allowed = origin is None or origin.partition("://")[2] == request.headers.get("host")
    if not allowed:
        raise HttpError(403, "a page of another site sent this request", code="forbidden")


def _name(host: str) -> str:
    """Returns the name in a Host header, without the port and in lower case."""
    name, _, port = host.rpartition(":")
    if not name or not port.isdecimal():
        name = host
    return name.strip("[]").rstrip(".").casefold()


def _is_local(name: str) -> bool:
    """Returns True for names that nobody else can make lead here: localhost, and addresses."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
