"""Questions about the daemon's state, which users outside its group may ask, too."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from asrd.client.client import Client
from asrd.errors import ConnectionLost
from asrd.settings import DEFAULT_SOCKET

T = TypeVar("T")

# The public socket next to the default one: it answers only such questions.
STATUS_SOCKET = str(Path(DEFAULT_SOCKET).with_name("status.sock"))


def ask(socket: str | None, question: Callable[[Client], T]) -> T:
    """Asks at `socket`, else where the client looks, else at the public socket. Raises what the
    question raises."""
    try:
        with Client(socket) as client:
            return question(client)
    except ConnectionLost as error:
        named = socket or os.environ.get("ASRD_SOCKET")
        if named or not isinstance(error.__cause__, PermissionError):
            raise
        denied = error
    try:
        with Client(STATUS_SOCKET) as client:
            return question(client)
    except ConnectionLost:
        raise denied from None
