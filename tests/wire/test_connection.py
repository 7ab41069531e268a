"""A connection whose peer reads late, never, not enough, or is gone."""

import errno
import os
import socket

import anyio
import pytest
import trio.testing

import asrd.wire.connection
from asrd.errors import ProtocolError
from asrd.wire import fdsocket, frames
from asrd.wire.connection import Connection
from tests.support.raw import memfd
from tests.support.users import PATIENCE, connected

pytestmark = pytest.mark.anyio

# Enough to fill the kernel's buffer for a Unix socket several times over.
LARGE = "x" * 1_000_000


async def test_events_go_both_ways_until_the_end() -> None:
    async with connected() as (channel, peer, _):
        channel.send("ping", {"text": "one"})
        channel.send("audio-stop")
        assert (await peer.event()).data == {"text": "one"}
        assert (await peer.event()).type == "audio-stop"
        peer.sock.sendall(frames.encode("pong", {"text": "one"}) + frames.encode("info"))
        events = [await channel.receive(), await channel.receive()]
        assert [event and event.type for event in events] == ["pong", "info"]
        peer.sock.sendall(b'{"type"')
        peer.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ProtocolError, match="ended in the middle of an event"):
            await channel.receive()


async def test_descriptor_is_sent_once_and_stays_the_senders() -> None:
    async with connected() as (channel, peer, _):
        with memfd(b"audio") as fd:
            channel.send("job", {"text": LARGE}, [fd.fileno()])
            channel.send("ping")
            event = await peer.event()
            assert len(event.fds) == 1
            assert os.pread(event.fds[0].fileno(), 9, 0) == b"audio"
            event.close()
            assert os.pread(fd.fileno(), 9, 0) == b"audio"
        assert (await peer.event()).type == "ping"
        assert peer.decoder.next_frame() is None


async def test_no_event_overtakes_a_buffered_one() -> None:
    async with connected() as (channel, peer, _):
        channel.send("segment", {"text": LARGE})
        # Now there is room again; the connection has not noticed it yet.
        count, _ = fdsocket.receive_into(peer.sock, peer.buffer)
        channel.send("ping")
        peer.decoder.receive(bytes(peer.buffer[:count]))
        assert [(await peer.event()).type for _ in range(2)] == ["segment", "ping"]


async def test_event_for_a_full_socket_is_buffered_whole() -> None:
    async with connected() as (channel, _, _):
        with pytest.raises(BlockingIOError):
            while True:
                fdsocket.send(channel._sock, [b"x" * 1000], ())
        channel.send("ping")
        assert channel.unread == len(frames.encode("ping"))


async def test_peer_that_reads_late_gets_everything_in_order() -> None:
    async with connected() as (channel, peer, _):
        for number in range(5):
            channel.send("segment", {"number": number, "text": LARGE})
        await channel.flush(0)
        assert " unread=0 " not in repr(channel)
        async with anyio.create_task_group() as reading:
            reading.start_soon(channel.flush, PATIENCE)
            for number in range(5):
                assert (await peer.event()).data["number"] == number
        assert " unread=0 " in repr(channel)
        channel.send("ping", {"text": "after"})
        assert (await peer.event()).data == {"text": "after"}


async def test_buffered_descriptor_is_a_copy() -> None:
    async with connected() as (channel, peer, _):
        channel.send("segment", {"text": LARGE})
        with memfd(b"first") as fd:
            channel.send("job", {"key": 1}, [fd.fileno()])
        with memfd(b"second") as fd:
            channel.send("job", {"key": 2}, [fd.fileno()])
        assert (await peer.event()).type == "segment"
        for text in (b"first", b"second"):
            event = await peer.event()
            assert os.pread(event.fds[0].fileno(), 9, 0) == text
            event.close()


@pytest.mark.parametrize("over", [False, True])
async def test_peer_with_too_many_unread_bytes_is_cut_off(over: bool) -> None:
    async with connected() as (probe, _, _):
        probe.send("segment", {"text": LARGE})
        left = probe.unread
    async with connected(output_max=left - over) as (channel, peer, _):
        channel.send("segment", {"text": LARGE})
        assert (channel.unread, channel.overflowed) == (left, False)
        channel.send("ping")
        assert channel.overflowed == over
        channel.send("ping")
        assert (channel.unread, channel.overflowed) == (0, True)
        assert await channel.receive() is None
        await channel.flush(PATIENCE)
        with pytest.raises(AssertionError, match="the connection ended"):
            await peer.event()


@pytest.mark.parametrize("leave", ["channel", "peer"])
async def test_buffered_output_is_dropped_at_the_end(leave: str) -> None:
    async with connected() as (channel, peer, _):
        channel.send("segment", {"text": LARGE})
        with memfd(b"audio") as fd:
            channel.send("job", {"key": 1}, [fd.fileno()])
        await anyio.lowlevel.checkpoint()
        (channel if leave == "channel" else peer).close()
        await channel.flush(PATIENCE)
        assert " unread=0 " in repr(channel)


async def test_send_never_raises() -> None:
    async with connected() as (channel, peer, _):
        peer.close()
        channel.send("ping")
        channel.send("ping", {"text": LARGE})
        assert await channel.receive() is None
        channel.close()
        channel.send("ping")
        channel.close()
        channel.shutdown()


async def test_event_that_arrives_too_slowly_is_an_error() -> None:
    async with connected(frame_timeout=0.01) as (channel, peer, _):
        peer.sock.sendall(frames.encode("pong") + b'{"type"')
        assert await channel.receive() is not None
        with pytest.raises(ProtocolError, match=r"an event took longer than 0\.01 s to arrive"):
            await channel.receive()


@pytest.mark.parametrize("size", [64, 4096])
async def test_connections_that_share_a_buffer_do_not_mix_events(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gives way after each event, in the middle of a read or of an event."""
    monkeypatch.setattr(asrd.wire.connection, "TURN_SECONDS", 0.0)
    buffer = memoryview(bytearray(size))
    sent = {name: [f"{name}{number}" for number in range(60)] for name in "ab"}
    received: dict[str, list[str]] = {"a": [], "b": []}

    async def receive(name: str, channel: Connection) -> None:
        for _ in sent[name]:
            event = await channel.receive()
            assert event is not None
            received[name].append(event.data["text"])

    async with connected(buffer=buffer) as (a, a_peer, tasks), connected(buffer=buffer) as b:
        for name, peer in (("a", a_peer), ("b", b[1])):
            peer.sock.sendall(
                b"".join(frames.encode("ping", {"text": text}) for text in sent[name])
            )
        tasks.start_soon(receive, "a", a)
        await receive("b", b[0])
        while len(received["a"]) < 60:
            await anyio.lowlevel.checkpoint()
    assert received == sent


async def test_failed_send_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(sock: socket.socket, buffers: object, fds: object) -> int:
        raise OSError(errno.ETOOMANYREFS, "Too many references: cannot splice")

    async with connected() as (channel, peer, _):
        peer.sock.sendall(frames.encode("pong"))
        monkeypatch.setattr(fdsocket, "send", refuse)
        channel.send("ping")
        event = await channel.receive()
        assert event is not None
        assert event.type == "pong"
        assert await channel.receive() is None


class TestByAVirtualClock:
    """Tests of times, with trio's virtual clock."""

    @pytest.fixture
    def clock(self) -> trio.testing.MockClock:
        return trio.testing.MockClock()

    @pytest.fixture
    def anyio_backend(self, clock: trio.testing.MockClock) -> object:
        return "trio", {"clock": clock}

    async def test_each_event_has_its_own_timeout(self, clock: trio.testing.MockClock) -> None:
        """The end of each event arrives with the begin of the next one, slowly but in time."""
        raw = frames.encode("ping", {"text": "again"})
        async with connected(frame_timeout=3) as (channel, peer, tasks):
            peer.sock.sendall(raw[:9])
            tasks.start_soon(self._count, channel, 5)
            for _ in range(5):
                for part in (raw[9:20], raw[20:] + raw[:9]):
                    await trio.testing.wait_all_tasks_blocked()
                    clock.jump(1.4)
                    peer.sock.sendall(part)
            await trio.testing.wait_all_tasks_blocked()

    async def _count(self, channel: Connection, events: int) -> None:
        for _ in range(events):
            assert await channel.receive() is not None

    async def test_bytes_of_a_slow_event_do_not_extend_its_time(
        self, clock: trio.testing.MockClock
    ) -> None:
        errors: list[str] = []

        async def receive(channel: Connection) -> None:
            with pytest.raises(ProtocolError) as caught:
                await channel.receive()
            errors.append(str(caught.value))

        async with connected(frame_timeout=3) as (channel, peer, tasks):
            tasks.start_soon(receive, channel)
            for byte in b'{"t':
                assert not errors
                peer.sock.sendall(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(1)
                await trio.testing.wait_all_tasks_blocked()
            assert errors == ["an event took longer than 3 s to arrive"]

    async def test_silence_between_events_has_no_timeout(
        self, clock: trio.testing.MockClock
    ) -> None:
        async with connected(frame_timeout=3) as (channel, peer, tasks):
            tasks.start_soon(self._count, channel, 2)
            for _ in range(2):
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(5)
                peer.sock.sendall(frames.encode("ping"))
            await trio.testing.wait_all_tasks_blocked()
