"""Notifications that a program sends to its service manager (sd_notify(3))."""

import socket


def notifications(manager: socket.socket) -> list[str]:
    """The notifications that have arrived; the fixture `manager` of conftest.py receives them."""
    manager.setblocking(False)
    found = []
    while True:
        try:
            found.append(manager.recv(65536).decode())
        except BlockingIOError:
            return found
