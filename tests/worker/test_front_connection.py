"""The worker's end of its connection from the front, against fronts that do not read."""

import socket
import threading

import pytest

from asrd.errors import Code
from asrd.wire.worker_events import Done, Failed
from asrd.worker.front_connection import FrontConnection
from tests.support.raw import Peer

# More than the kernel buffers for a front that does not read.
LONG = "x" * 3_000_000


def test_transcript_over_the_clients_limit_is_too_large() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        connection = FrontConnection(ours)
        connection.send(Done(7, "x" * (64 << 20), 1.0, 1.0))
        failed = Peer(theirs).expect(Failed.TYPE)
        connection.close()
    assert (failed["key"], failed["code"]) == (7, Code.TOO_LARGE)
    assert "over the limit" in failed["text"]


@pytest.mark.parametrize("reads", [True, False])
def test_worker_waits_a_limited_time_for_front_that_does_not_read(reads: bool) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        connection = FrontConnection(ours)
        connection.send(Done(7, LONG, 1.0, 1.0))
        reader = threading.Thread(target=Peer(theirs).expect, args=("done",))
        if reads:
            reader.start()
        connection.finish(30 if reads else 0.01)
        assert connection.wants_write is not reads
        if reads:
            reader.join()
        connection.close()
