"""The peer of a connection: what its quotas count by, and whose jobs it may see. Pure.

The kernel vouches for the user of a Unix socket's peer (SO_PEERCRED). Any other peer, as of a TCP
socket, is known by nothing but its connection and the address that it came from.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# The key of quotas and turns: a user id, or the address of a peer without credentials.
User = int | str

# The id that the kernel gives for a user without a number in our namespace (user_namespaces(7)).
_OVERFLOW_UID = 65534


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """One for each connection; two are never equal. `uid` is None without credentials, and
    `address` tells then where the connection came from."""

    pid: int | None
    uid: int | None
    gid: int | None
    address: str = "unknown"

    @property
    def user(self) -> User:
        return self.address if self.uid is None else self.uid

    @property
    def is_root(self) -> bool:
        return self.uid == 0

    def may_see(self, owner: "Peer") -> bool:
        """True if this peer may see and cancel the owner's jobs: root may for everybody's, a user
        for those of all its own connections. A peer without credentials, or with the id that
        users of other namespaces share, may only for its own connection."""
        known = self.uid is not None and self.uid != _OVERFLOW_UID
        return self is owner or self.is_root or (known and self.uid == owner.uid)

    @property
    def log_fields(self) -> Mapping[str, object]:
        if self.uid is None:
            return {"ASRD_PEER_ADDRESS": self.address}
        return {"ASRD_PEER_UID": self.uid, "ASRD_PEER_PID": self.pid}


def named(user: User) -> str:
    """`user 1000`, `address 192.0.2.1`: as error texts name them."""
    return f"address {user}" if isinstance(user, str) else f"user {user}"
