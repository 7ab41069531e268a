"""The peer of a connection: the key of its quotas, and the jobs that it may see. Pure.

The kernel reports the user of a Unix socket's peer (SO_PEERCRED). Other peers, for example of a TCP
socket, are known only by their connection and their address.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# The key of quotas and of fair turns: a user id, or text for a peer without credentials (its
# address), and for the user of a gateway.
User = int | str

# The kernel's id for a user without a number in our namespace (user_namespaces(7)).
_OVERFLOW_UID = 65534


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """The peer of one connection; two peers are never equal.

    Without credentials, `uid` is None and `address` is where the connection comes from.
    """

    pid: int | None
    uid: int | None
    gid: int | None
    address: str = "unknown"

    @property
    def user(self) -> User:
        return f"address {self.address}" if self.uid is None else self.uid

    def on_behalf_of(self, name: str) -> User:
        """Returns the key of a gateway's user."""
        return f"user {name} of {named(self.user)}"

    @property
    def is_root(self) -> bool:
        return self.uid == 0

    def may_see(self, owner: "Peer") -> bool:
        """Returns True if this peer may see and cancel the owner's jobs.

        Root may see all jobs, a user those of all its connections. A peer without credentials, or
        with the id that users of other namespaces share, may see those of its own connection.
        """
        known = self.uid is not None and self.uid != _OVERFLOW_UID
        return self is owner or self.is_root or (known and self.uid == owner.uid)

    @property
    def log_fields(self) -> Mapping[str, object]:
        if self.uid is None:
            return {"ASRD_PEER_ADDRESS": self.address}
        return {"ASRD_PEER_UID": self.uid, "ASRD_PEER_PID": self.pid}


def named(user: User) -> str:
    """Returns `user 1000` or `address 192.0.2.1`, for error texts."""
    return user if isinstance(user, str) else f"user {user}"
