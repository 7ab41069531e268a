"""The programs that speak for other users, such as asrd-http."""

import os
import pwd
from collections.abc import Iterable

from asrd.wire.peer import Peer


class Gateways:
    """Users, by name or number, whose programs may name the user of a request. Root may, and so may
    programs that run as this process does: they could change it anyway."""

    def __init__(self, users: Iterable[str]) -> None:
        found = {_uid(user) for user in users}
        self._uids = {0, os.geteuid(), *(uid for uid in found if uid is not None)}

    def may_speak(self, peer: Peer) -> bool:
        """Returns True if this peer may name the user of a request."""
        return peer.uid in self._uids


def _uid(user: str) -> int | None:
    """Returns None for a name that does not exist: the gateway is not installed."""
    if user.isascii() and user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None
