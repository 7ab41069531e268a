"""The kinds of sockets: which one a passed socket is, and what each may cost."""

import socket
from typing import Any

import pytest

from asrd.front.doors import MAIN, STATUS, WYOMING, door_of
from asrd.front.front import Front
from asrd.settings import FrontSettings


@pytest.mark.parametrize("name", ["asrd", "status", "wyoming", "unknown"])
def test_socket_of_tcp_is_a_door_for_strangers(name: str) -> None:
    """An admin may write ListenStream=10300 into a drop-in of asrd.socket."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with socket.socket(family) as sock:
            assert door_of(sock, name) == WYOMING
    with socket.socket(socket.AF_UNIX) as sock:
        assert door_of(sock, name) == (name if name in (MAIN, STATUS, WYOMING) else None)


@pytest.mark.parametrize(
    ("settings", "seconds", "payload"),
    [
        ({}, 600, 115_200_000),
        ({"max_audio_seconds": 60}, 60, 11_520_000),
        ({"max_payload_bytes": 40_000}, 600, 40_000),
    ],
)
def test_strangers_send_no_more_than_members(
    settings: dict[str, Any], seconds: float, payload: int
) -> None:
    doors = Front(FrontSettings(**settings), memoryview(b"")).doors
    door = doors[WYOMING]
    assert (door.max_audio_seconds, door.limits.payload) == (seconds, payload)
    assert (door.limits.fds, door.strangers) == (0, True)
    assert not doors[MAIN].strangers
