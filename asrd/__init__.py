"""asrd: a speech-to-text daemon that survives its engine.

`from asrd import Client, AsyncClient` is the public library; asrd.errors has its exceptions.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asrd.version import __version__

if TYPE_CHECKING:
    from asrd.client.asyncclient import AsyncClient
    from asrd.client.client import Client
    from asrd.client.speakers import Speakers, search_options
    from asrd.errors import WarningCode
    from asrd.wire.records import JobWarning

__all__ = [
    "AsyncClient",
    "Client",
    "JobWarning",
    "Speakers",
    "WarningCode",
    "__version__",
    "search_options",
]

# Imported late: the front imports this package without the clients, and the blocking client works
# without anyio.
_MODULES = {
    "AsyncClient": "asrd.client.asyncclient",
    "Client": "asrd.client.client",
    "JobWarning": "asrd.wire.records",
    "Speakers": "asrd.client.speakers",
    "WarningCode": "asrd.errors",
    "search_options": "asrd.client.speakers",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
