"""asrd: a speech-to-text daemon that survives its engine.

`from asrd import Client, AsyncClient` is the public library; asrd.errors holds its exceptions.
"""

from typing import TYPE_CHECKING, Any

from asrd.version import __version__

if TYPE_CHECKING:
    from asrd.client.asyncclient import AsyncClient
    from asrd.client.client import Client

__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    # Looked up late: the front imports this package, too, and has no use for the clients; and
    # the blocking one has no use for anyio.
    if name == "Client":
        from asrd.client.client import Client

        return Client
    if name == "AsyncClient":
        from asrd.client.asyncclient import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
