"""asrd: a speech-to-text daemon that survives its engine.

`from asrd import Client, AsyncClient` is the public library; asrd.errors holds its exceptions.
"""

from typing import TYPE_CHECKING, Any

from asrd.version import __version__

if TYPE_CHECKING:
    from asrd.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    # Looked up late: the front imports this package, too, and has no use for the client.
    if name in ("Client", "AsyncClient"):
        from asrd import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
