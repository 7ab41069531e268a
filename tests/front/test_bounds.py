"""Bounds on what clients can make the front hold: at each there is still room, past it none.

Those of the queue are in test_fairqueue.py, of recordings in test_spool.py, of a user's jobs in
test_users.py, of frames in test_wire.py.
"""

import fcntl
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest

from asrd import listener
from asrd.errors import Busy, ConfigError, ProtocolError
from asrd.front import memory_bounds
from asrd.front.server import _main_door, _status_door
from asrd.listener import bind, unbind
from asrd.settings import FrontSettings
from asrd.wire import fdsocket, frames
from asrd.wire.connection import BufferBudget, Connection
from tests.support.paths import ROOT

ALICE, BOB = 1000, 1001


# --- one event ------------------------------------------------------------------------------------


def event(data: bytes, payload_length: int = 0) -> bytes:
    head = b'{"type": "x", "data_length": %d, "payload_length": %d}\n'
    return head % (len(data), payload_length) + data


@pytest.mark.parametrize("value", [b"0", b"[]", b"{}", b'"a,b"'])
def test_an_event_may_have_so_many_values_and_no_more(value: bytes) -> None:
    """One of nothing but brackets once held the event loop for 150 ms."""
    each = sum(map(value.count, (b",", b"[", b"{"))) + 1
    fitting = (frames.MAX_VALUES - 1) // each
    for count, refused in ((fitting, False), (fitting + 1, True)):
        decoder = frames.Decoder(frames.FrameLimits())
        decoder.receive(event(b'{"a": [' + b",".join([value] * count) + b"]}"))
        if refused:
            with pytest.raises(ProtocolError, match="data has more than 8192 values"):
                decoder.next_frame()
        else:
            assert decoder.next_frame() is not None


def test_what_asrd_wrote_itself_may_have_as_many_values_as_fit() -> None:
    decoder = frames.Decoder(frames.FrameLimits(strict=False))
    decoder.receive(event(b'{"a": [' + b",".join([b"0"] * 20_000) + b"]}"))
    assert decoder.next_frame() is not None


def test_data_that_waits_for_its_payload_takes_no_more_than_as_json() -> None:
    """As objects it was forty times as large, for as long as its client let the payload trickle."""
    data = b'{"a": [' + b",".join([b"[]"] * (frames.MAX_VALUES // 2 - 8)) + b"]}"
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


def test_header_data_that_waits_for_the_rest_is_merged_all_the_same() -> None:
    decoder = frames.Decoder(frames.FrameLimits(payload=1))
    decoder.receive(b'{"type":"x","data":{"a":1,"b":1},"data_length":7,"payload_length":1}\n{"b"')
    assert decoder.next_frame() is None
    decoder.receive(b":2}")
    assert decoder.next_frame() is None
    decoder.receive(b"x")
    found = decoder.next_frame()
    assert found is not None
    assert found.data == {"a": 1, "b": 2}


@pytest.mark.parametrize("count", [1, 4])
def test_a_socket_for_strangers_takes_no_descriptor(count: int) -> None:
    """The kernel drops it before it is ours: to close one of a file system that does not answer
    (FUSE) takes as long as its owner likes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fdsocket.send(theirs, [b"x"], [0] * count)
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(ProtocolError, match="more than 0 descriptors"):
            fdsocket.receive_into(ours, memoryview(bytearray(9)), max_fds=0)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    decoder = frames.Decoder(_status_door(FrontSettings()).limits)
    decoder.receive(b'{"type": "ping", "fds": 1}\n')
    with pytest.raises(ProtocolError, match="fds: no descriptor can be passed over this socket"):
        decoder.next_frame()


# --- what is kept for all -------------------------------------------------------------------------


@contextmanager
def channel(
    tasks: anyio.abc.TaskGroup, kept: BufferBudget, owner: int
) -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    buffer = memoryview(bytearray(1 << 18))
    decoder = frames.Decoder(frames.FrameLimits())
    made = Connection(ours, decoder, tasks, buffer, output_max=1 << 30, kept=kept, owner=owner)
    try:
        with theirs:
            yield made, theirs
    finally:
        made.close()


def half(size: int) -> bytes:
    """The beginning of an event, of which so many bytes are kept."""
    return event(b"x" * 200_000)[: -200_000 + size]


@pytest.mark.parametrize("over", [0, 1])
def test_half_events_of_all_are_bounded_and_the_user_with_most_is_told(over: int) -> None:
    """Bob's single one is larger than each of Alice's, but she has more in all."""

    async def crowd() -> None:
        kept = BufferBudget(100_000)
        ended: list[int] = []
        async with anyio.create_task_group() as tasks:
            with (
                channel(tasks, kept, ALICE) as (one, peer_one),
                channel(tasks, kept, ALICE) as (two, peer_two),
                channel(tasks, kept, BOB) as (other, peer_other),
            ):

                async def read(number: int, from_: Connection) -> None:
                    try:
                        await from_.receive()
                    except Busy:
                        ended.append(number)

                for number, each in enumerate((one, two, other)):
                    tasks.start_soon(read, number, each)
                peer_one.sendall(half(29_000))
                peer_two.sendall(half(31_000))
                await _wait_until(lambda: kept.total == 60_000)
                peer_other.sendall(half(40_000 + over))
                await _wait_until(lambda: kept.total == 100_000 or ended == [1])
                assert (one.overflowed, two.overflowed, other.overflowed) == (
                    False,
                    bool(over),
                    False,
                )
                assert kept.total == (69_001 if over else 100_000)
                tasks.cancel_scope.cancel()
        assert kept.total == 0

    anyio.run(crowd)


async def _wait_until(condition: object) -> None:
    assert callable(condition)
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0)


def test_an_event_that_is_whole_is_kept_no_longer() -> None:
    async def finish() -> None:
        kept = BufferBudget(1 << 20)
        async with anyio.create_task_group() as tasks:
            with channel(tasks, kept, ALICE) as (one, peer):
                raw = event(b'{"a": "' + b"x" * 50_000 + b'"}')
                peer.sendall(raw[:30_000])
                with anyio.move_on_after(0.05):
                    await one.receive()
                assert kept.total == one.kept > 29_000
                peer.sendall(raw[30_000:])
                found = await one.receive()
                assert found is not None
                assert kept.total == one.kept == 0

    anyio.run(finish)


# --- connections ----------------------------------------------------------------------------------


def test_connections_are_bounded_in_all_and_by_user() -> None:
    settings = FrontSettings(connections_max=5, connections_max_per_user=3)
    quota = _main_door(settings).quota
    for _ in range(3):
        assert quota.why_full(ALICE) is None
        quota.add(ALICE, 1)
    assert quota.why_full(ALICE) == "the limit for user 1000 is reached (3 connections)"
    for _ in range(2):
        assert quota.why_full(BOB) is None
        quota.add(BOB, 1)
    assert quota.why_full(BOB) == "the limit for all clients is reached (5 connections)"
    quota.add(ALICE, -1)
    assert quota.why_full(ALICE) is None
    assert quota.why_full(BOB) is None


def test_by_default_no_user_has_it_all() -> None:
    settings = FrontSettings()
    assert 2 * settings.connections_max_per_user <= settings.connections_max
    assert 2 * settings.status_connections_max_per_user <= settings.status_connections_max
    assert 2 * settings.spool_max_bytes_per_user <= settings.spool_max_bytes
    assert settings.max_payload_bytes <= settings.spool_max_bytes_per_user


def test_the_unit_allows_the_descriptors_that_the_default_settings_may_need() -> None:
    unit = ROOT / "systemd" / "asrd.service"
    (allowed,) = (
        int(line.partition("=")[2])
        for line in unit.read_text().splitlines()
        if line.startswith("LimitNOFILE=")
    )
    assert memory_bounds.descriptors(FrontSettings()) + 2000 < allowed


# --- the socket's place ---------------------------------------------------------------------------


def test_of_many_that_bind_at_once_one_succeeds(tmp_path: Path) -> None:
    """Each found nobody listening, and removed the socket of the one before."""
    path = str(tmp_path / "s")
    start = threading.Barrier(8)
    listening: list[socket.socket] = []
    refused: list[str] = []

    def try_to() -> None:
        start.wait()
        try:
            listening.append(bind(path))
        except ConfigError as error:
            refused.append(str(error))

    for _ in range(10):
        # A dead daemon's, which all want to remove.
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        threads = [threading.Thread(target=try_to) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (sock,) = listening
        assert set(refused) == {f"cannot listen at {path}: another daemon listens there"}
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        sock.close()
        unbind(path)
        assert list(tmp_path.iterdir()) == []
        listening.clear()


def test_a_daemon_that_ends_leaves_the_socket_of_the_next_one(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    bind(path).close()
    with bind(path):
        unbind(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    unbind(path)
    unbind(path)
    assert not Path(path).exists()


def test_a_lock_that_is_never_let_go_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_LOCK_SECONDS", 0.05)
    path = tmp_path / "s"
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"another program holds .*s\.lock"):
            bind(str(path))


def test_a_lock_is_not_followed_to_another_file(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    (tmp_path / "s.lock").symlink_to(precious)
    with pytest.raises(ConfigError, match="cannot listen at"):
        bind(str(tmp_path / "s"))
    assert precious.read_text() == "x"
