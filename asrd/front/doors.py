"""The kinds of sockets that clients connect to: what each answers, and its limits. A crowd at one
kind must not close another."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from asrd.listener import MAIN_MODE, PUBLIC_MODE
from asrd.quota import Quota
from asrd.settings import FrontSettings
from asrd.wire import frames
from asrd.wire.client_events import Describe, Ping, StatusRequest

# The names under which systemd passes the sockets (FileDescriptorName=).
MAIN, STATUS, WYOMING = "asrd", "status", "wyoming"

# Bytes of a second of 48 kHz stereo: the most that a voice client sends.
_SECOND = 192_000


@dataclass(frozen=True)
class Door:
    """One kind of socket. `spool` counts its clients' inline audio; `mode` is that of its file.

    `strangers`: its peers may share an address or a user id without knowing each other, so each
    ends only the jobs of its own connection, and none speaks for other users.
    """

    name: str
    limits: frames.FrameLimits
    output_max: int
    quota: Quota
    spool: Quota
    max_audio_seconds: float
    strangers: bool = False

    @property
    def public(self) -> bool:
        """Returns True for the status socket, which takes no audio and shows no job."""
        return self.name == STATUS

    @property
    def mode(self) -> int:
        return PUBLIC_MODE if self.public else MAIN_MODE

    def why_refused(self, event: Any) -> str | None:
        """Returns the reason why an event gets no answer here; None if it gets one."""
        if self.public and not isinstance(event, Describe | Ping | StatusRequest):
            return "this socket answers status, ping and describe"
        if self.strangers and isinstance(event, StatusRequest):
            return "is not answered here: ask over the daemon's own socket"
        return None


def doors(settings: FrontSettings, spool: Quota) -> Mapping[str, Door]:
    """Returns the kinds of sockets by name; `spool` counts the inline audio of all clients."""
    main = Door(
        MAIN,
        frames.FrameLimits(payload=settings.max_payload_bytes),
        settings.output_max_bytes,
        Quota(settings.connections_max, settings.connections_max_per_user, "connections"),
        spool,
        settings.max_audio_seconds,
    )
    # For short questions, and a few hundred unread answers.
    status = replace(
        main,
        name=STATUS,
        limits=frames.FrameLimits(data=4096, payload=64 * 1024, fds=0),
        output_max=min(1 << 20, settings.output_max_bytes),
        quota=Quota(
            settings.status_connections_max,
            settings.status_connections_max_per_user,
            "connections",
        ),
    )
    seconds = min(settings.max_audio_seconds, settings.wyoming_max_audio_seconds)
    payload = min(settings.max_payload_bytes, int(seconds * _SECOND))
    # Half of the memory stays for others, whatever the number of addresses.
    share = settings.spool_max_bytes // 2
    wyoming = replace(
        main,
        name=WYOMING,
        limits=frames.FrameLimits(payload=payload, fds=0),
        quota=Quota(
            settings.wyoming_connections_max,
            settings.wyoming_connections_max_per_address,
            "connections",
        ),
        spool=Quota(share, share // 2, "bytes of inline audio over Wyoming", within=spool),
        max_audio_seconds=seconds,
        strangers=True,
    )
    return {door.name: door for door in (main, status, wyoming)}


def door_of(sock: socket.socket, name: str) -> str | None:
    """Returns the name of the door for a socket that was passed under `name`; None if it is not
    used. Whatever its name, a socket that strangers may reach is never more than theirs."""
    if sock.family != socket.AF_UNIX:
        return WYOMING
    return name if name in (MAIN, STATUS, WYOMING) else None
