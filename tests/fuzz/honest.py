"""A worker played by a thread that "hears" in an audio its SHA-256, so that each has its text."""

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator

from asrd.errors import ProtocolError
from tests.support.raw import HELLO, Peer, done

_TICK_SECONDS = 0.1


def heard(audio: bytes) -> str:
    return hashlib.sha256(audio).hexdigest()


@contextlib.contextmanager
def honest_worker(listener: socket.socket, seconds: float = 0) -> Iterator[None]:
    """Each job takes so many seconds."""
    stop = threading.Event()
    thread = threading.Thread(target=_serve, args=(listener, stop, seconds), name="honest worker")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _serve(listener: socket.socket, stop: threading.Event, seconds: float) -> None:
    listener.settimeout(_TICK_SECONDS)
    while not stop.is_set():
        try:
            sock, _ = listener.accept()
        except TimeoutError:
            continue
        with Peer(sock) as front, contextlib.suppress(OSError, ProtocolError):
            sock.settimeout(_TICK_SECONDS)
            front.send("hello", {**HELLO, "model": "honest"})
            while not stop.is_set() and _answer(front, seconds):
                pass


def _answer(front: Peer, seconds: float) -> bool:
    """The next event, if there is one; False at the end of the connection."""
    try:
        event = front.receive()
    except TimeoutError:
        return True
    if event is None:
        return False
    if event.type == "job":
        (fd,) = event.fds
        with fd:
            audio = os.pread(fd.fileno(), 1 << 24, 0)
        time.sleep(seconds)
        front.send("done", done(event.data["key"], heard(audio)))
    return True
