"""Limits on what a peer's bytes may cost: events that arrive, and answers that nobody reads."""

import os
import socket
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import anyio
import pytest

from asrd.errors import Busy, ProtocolError
from asrd.front.doors import STATUS
from asrd.front.front import Front
from asrd.settings import FrontSettings
from asrd.wire import fdsocket, frames
from asrd.wire.connection import BufferBudget, Connection
from tests.support.raw import memfd
from tests.support.users import ALICE, BOB, connected

pytestmark = pytest.mark.anyio


# --- one event ------------------------------------------------------------------------------------


def event(data: bytes, payload_length: int = 0) -> bytes:
    head = b'{"type": "x", "data_length": %d, "payload_length": %d}\n'
    return head % (len(data), payload_length) + data


def list_of(value: bytes, count: int) -> bytes:
    return b'{"a": [' + b",".join([value] * count) + b"]}"


@pytest.mark.parametrize("value", [b"0", b"[]", b"{}", b'"a,b"'])
def test_event_with_too_many_values_is_refused(value: bytes) -> None:
    """One of nothing but brackets once blocked the event loop for 150 ms."""
    each = sum(map(value.count, (b",", b"[", b"{"))) + 1
    fitting = (frames.MAX_VALUES - 1) // each
    decoder = frames.Decoder(frames.FrameLimits())
    decoder.receive(event(list_of(value, fitting)) + event(list_of(value, fitting + 1)))
    assert decoder.next_frame() is not None
    with pytest.raises(ProtocolError, match="data has more than 8192 values"):
        decoder.next_frame()
    # asrd's own events are not counted.
    decoder = frames.Decoder(frames.FrameLimits(strict=False))
    decoder.receive(event(list_of(value, 20_000)))
    assert decoder.next_frame() is not None


def test_duplicate_keys_are_found_in_linear_time() -> None:
    """One event with 25,000 keys, the last two equal, once blocked the event loop for 19 s."""
    keys = [f'"{number:04x}":1' for number in range(frames.MAX_VALUES - 1)]
    decoder = frames.Decoder(frames.FrameLimits())
    decoder.receive(event(("{" + ",".join([*keys, keys[-1]]) + "}").encode()))
    started = time.process_time()
    with pytest.raises(ProtocolError, match="'1ffe'"):
        decoder.next_frame()
    # It takes some 10 ms; only a quadratic search takes longer than this.
    assert time.process_time() - started < 1


def test_data_that_waits_for_its_payload_stays_json() -> None:
    """Parsed objects took forty times the memory while the client let the payload trickle."""
    data = list_of(b"[]", frames.MAX_VALUES // 2 - 8)
    tracemalloc.start()
    decoder = frames.Decoder(frames.FrameLimits(payload=2))
    decoder.receive(event(data, 2))
    assert decoder.next_frame() is None
    decoder.receive(b"x")
    assert decoder.next_frame() is None
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 3 * len(data) + 20_000
    assert decoder.held <= len(data)
    decoder.receive(b"x")
    found = decoder.next_frame()
    assert found is not None
    assert len(found.data["a"]) == frames.MAX_VALUES // 2 - 8
    assert decoder.held == 0


def test_header_data_that_waits_for_a_payload_is_merged() -> None:
    decoder = frames.Decoder(frames.FrameLimits(payload=1))
    raw = b'{"type":"x","data":{"a":1,"b":1},"data_length":7,"payload_length":1}\n{"b":2}'
    decoder.receive(raw)
    assert decoder.next_frame() is None
    decoder.receive(b"x")
    found = decoder.next_frame()
    assert found is not None
    assert found.data == {"a": 1, "b": 2}


def test_public_socket_takes_no_descriptor() -> None:
    """The kernel drops it before it is ours: closing one of a file system that does not answer
    (FUSE) takes as long as its owner likes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fdsocket.send(theirs, [b"x"], [0] * 4)
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(ProtocolError, match="more than 0 descriptors"):
            fdsocket.receive_into(ours, memoryview(bytearray(9)), max_fds=0)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    decoder = frames.Decoder(Front(FrontSettings(), memoryview(b"")).doors[STATUS].limits)
    decoder.receive(b'{"type": "ping", "fds": 1}\n')
    with pytest.raises(ProtocolError, match="fds: no descriptor can be passed over this socket"):
        decoder.next_frame()


# --- buffers of all clients -----------------------------------------------------------------------


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0)


def part(size: int) -> bytes:
    """The beginning of an event, of which so many bytes are kept."""
    return event(b"x" * 200_000)[: -200_000 + size]


@pytest.mark.parametrize("over", [False, True])
async def test_user_with_most_incomplete_events_gets_busy(over: bool) -> None:
    """Bob's single one is larger than each of Alice's, but she has more in all."""
    kept = BufferBudget(100_000)
    ended: list[Connection] = []

    async def read(connection: Connection) -> None:
        try:
            await connection.receive()
        except Busy:
            ended.append(connection)

    async with (
        connected(budget=kept, owner=ALICE) as (one, peer_one, tasks),
        connected(budget=kept, owner=ALICE) as (two, peer_two, _),
        connected(budget=kept, owner=BOB) as (other, peer_other, _),
    ):
        for each in (one, two, other):
            tasks.start_soon(read, each)
        peer_one.sock.sendall(part(29_000))
        peer_two.sock.sendall(part(31_000))
        await until(lambda: kept.total == 60_000)
        peer_other.sock.sendall(part(40_000 + over))
        await until(lambda: kept.total == 100_000 or ended == [two])
        assert [each.overflowed for each in (one, two, other)] == [False, over, False]
        assert kept.total == (69_001 if over else 100_000)
        tasks.cancel_scope.cancel()
    assert kept.total == 0


async def test_complete_event_no_longer_counts() -> None:
    kept = BufferBudget(1 << 20)
    async with connected(budget=kept, owner=ALICE) as (one, peer, _):
        raw = event(b'{"a": "' + b"x" * 50_000 + b'"}')
        peer.sock.sendall(raw[:30_000])
        with anyio.move_on_after(0.05):
            await one.receive()
        assert kept.total > 29_000
        peer.sock.sendall(raw[30_000:])
        assert await one.receive() is not None
        assert kept.total == 0


# More than the kernel keeps for a peer that does not read.
LARGE = {"text": "x" * 1_000_000}


async def test_user_with_most_unread_answers_is_cut_off() -> None:
    kept = BufferBudget(3_000_000)
    user = {"budget": kept, "owner": ALICE}
    async with connected(**user) as (greedy, _, _), connected(**user) as (modest, _, _):
        for connection in (greedy, greedy, modest):
            connection.send("transcript", LARGE)
        assert not greedy.overflowed
        assert kept.total == greedy.unread + modest.unread
        modest.send("transcript", {"text": "x" * 900_000})
        assert (greedy.overflowed, modest.overflowed) == (True, False)
        assert kept.total == modest.unread
    assert kept.total == 0


async def test_small_unread_answers_take_no_more_than_their_bytes() -> None:
    async with connected() as (connection, _, _):
        connection.send("filler", LARGE)
        tracemalloc.start()
        for _ in range(20_000):
            connection.send("pong")
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert connection.unread > 20_000 * 30
        assert taken < 2 * connection.unread


async def test_connection_ends_if_no_descriptor_is_left_to_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhausted(*_: Any) -> NoReturn:
        raise OSError

    async with connected() as (connection, _, _):
        with memfd(b"audio") as fd, monkeypatch.context() as patch:
            connection.send("filler", LARGE)
            patch.setattr(os, "dup", exhausted)
            connection.send("job", {}, [fd.fileno()])
        assert await connection.receive() is None
