"""Workers that a test plays in threads. An honest one answers a job with the SHA-256 of its audio,
so that each recording has a transcript of its own."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from asrd.errors import ProtocolError
from tests.support.raw import HELLO, Peer, done

_TICK_SECONDS = 0.2


def heard(audio: bytes) -> str:
    """The transcript of an honest worker."""
    return hashlib.sha256(audio).hexdigest()


@contextmanager
def in_background(run: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs it in a thread, and sets its event at the end of the block."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def serve_fronts(
    listener: socket.socket, stop: threading.Event, serve: Callable[[Peer], None]
) -> None:
    """Calls `serve` with each connection of the front, one after another, until `stop` is set."""
    listener.settimeout(_TICK_SECONDS)
    while not stop.is_set():
        try:
            sock, _ = listener.accept()
        except TimeoutError:
            continue
        with Peer(sock) as front, suppress(OSError, ProtocolError):
            sock.settimeout(_TICK_SECONDS)
            serve(front)


def jobs(front: Peer, stop: threading.Event) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The jobs of a connection, each with its audio, until the connection ends or `stop` is set."""
    while not stop.is_set():
        try:
            event = front.receive()
        except TimeoutError:
            continue
        if event is None:
            return
        if event.type == "job":
            (fd,) = event.fds
            with fd:
                audio = os.pread(fd.fileno(), 1 << 24, 0)
            yield event.data, audio


@contextmanager
def honest_worker(listener: socket.socket, seconds: float = 0) -> Iterator[None]:
    """A worker named `honest`, each of whose jobs takes so many seconds."""

    def run(stop: threading.Event) -> None:
        def serve(front: Peer) -> None:
            front.send("hello", {**HELLO, "model": "honest"})
            for job, audio in jobs(front, stop):
                time.sleep(seconds)
                front.send("done", done(job["key"], heard(audio)))

        serve_fronts(listener, stop, serve)

    with in_background(run):
        yield
