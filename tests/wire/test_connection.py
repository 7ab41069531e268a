"""A connection whose peer reads late, never, too little, or is gone."""

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import pytest
import trio.testing
from anyio.abc import TaskGroup

from asrd.errors import ProtocolError
from asrd.wire import fdsocket, frames
from asrd.wire.connection import Connection
from asrd.wire.fds import OwnedFd

pytestmark = pytest.mark.anyio

# Enough to fill the kernel's buffer for a Unix socket several times over.
LARGE = "x" * 1_000_000
# Longer than any of this takes on the slowest machine; nothing waits for it to pass.
PATIENCE = 20


class Peer:
    """The other end, read and written by hand."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.decoder = frames.Decoder(frames.FrameLimits(data=1 << 24))
        self.buffer = memoryview(bytearray(1 << 16))

    async def event(self) -> frames.Frame:
        with anyio.fail_after(PATIENCE):
            while (event := self.decoder.next_frame()) is None:
                await anyio.wait_readable(self.sock)
                count, fds = fdsocket.receive_into(self.sock, self.buffer)
                assert count, "the connection ended"
                self.decoder.receive(self.buffer[:count], fds)
            return event

    def close(self) -> None:
        self.decoder.close()
        self.sock.close()


@asynccontextmanager
async def connected(
    *, output_max: int = 1 << 24, frame_timeout: float | None = None
) -> AsyncIterator[tuple[Connection, Peer, TaskGroup]]:
    ours, theirs = socket.socketpair()
    peer = Peer(theirs)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            channel = Connection(
                ours,
                frames.Decoder(frames.FrameLimits()),
                tasks,
                memoryview(bytearray(1 << 16)),
                output_max=output_max,
                frame_timeout=frame_timeout,
            )
            try:
                yield channel, peer, tasks
            finally:
                channel.close()
                peer.close()


@contextmanager
def memfd(text: bytes) -> Iterator[int]:
    with OwnedFd(os.memfd_create("test")) as fd:
        os.write(fd.fileno(), text)
        yield fd.fileno()


async def test_events_go_both_ways() -> None:
    async with connected() as (channel, peer, _):
        channel.send("ping", {"text": "one"})
        channel.send("audio-stop")
        assert (await peer.event()).data == {"text": "one"}
        assert (await peer.event()).type == "audio-stop"
        peer.sock.sendall(frames.encode("pong", {"text": "one"}) + frames.encode("info"))
        events = [await channel.receive(), await channel.receive()]
        assert [event and event.type for event in events] == ["pong", "info"]
        peer.sock.shutdown(socket.SHUT_WR)
        assert await channel.receive() is None


async def test_repr_shows_what_is_unread() -> None:
    async with connected() as (channel, _, _):
        number = channel._sock.fileno()
        assert repr(channel) == (
            f"<Connection fd={number} unread=0 <Decoder header buffered=0 fds=0>>"
        )
        channel.send("ping", {"text": LARGE})
        assert f"<Connection fd={number} unread=0 " not in repr(channel)
        channel.close()
        assert repr(channel).startswith("<Connection fd=-1 unread=0 <Decoder broken")


async def test_a_descriptor_is_sent_with_its_event_and_stays_the_senders() -> None:
    async with connected() as (channel, peer, _):
        with memfd(b"audio") as fd:
            channel.send("job", {"key": 1}, [fd])
            event = await peer.event()
            assert os.pread(event.fds[0].fileno(), 9, 0) == b"audio"
            event.close()
            assert os.pread(fd, 9, 0) == b"audio"


async def test_the_rest_of_a_large_event_does_not_bring_its_descriptor_again() -> None:
    async with connected() as (channel, peer, _):
        with memfd(b"audio") as fd:
            channel.send("job", {"text": LARGE}, [fd])
            channel.send("ping")
        event = await peer.event()
        assert len(event.fds) == 1
        event.close()
        assert (await peer.event()).type == "ping"
        assert peer.decoder.next_frame() is None


async def test_no_event_overtakes_one_that_waits() -> None:
    async with connected() as (channel, peer, _):
        channel.send("segment", {"text": LARGE})
        # Now there is room again, and the channel does not know it yet.
        count, _ = fdsocket.receive_into(peer.sock, peer.buffer)
        channel.send("ping")
        peer.decoder.receive(bytes(peer.buffer[:count]))
        assert [(await peer.event()).type for _ in range(2)] == ["segment", "ping"]


async def test_a_peer_that_reads_late_gets_everything_in_order() -> None:
    async with connected() as (channel, peer, _):
        for number in range(5):
            channel.send("segment", {"number": number, "text": LARGE})
        for number in range(5):
            assert (await peer.event()).data["number"] == number
        await channel.flush(PATIENCE)
        assert " unread=0 " in repr(channel)
        channel.send("ping", {"text": "after"})
        assert (await peer.event()).data == {"text": "after"}


async def test_a_queued_descriptor_is_a_copy_of_its_own() -> None:
    async with connected() as (channel, peer, _):
        channel.send("segment", {"text": LARGE})
        with memfd(b"first") as fd:
            channel.send("job", {"key": 1}, [fd])
        with memfd(b"second") as fd:
            channel.send("job", {"key": 2}, [fd])
        assert (await peer.event()).type == "segment"
        for text in (b"first", b"second"):
            event = await peer.event()
            assert os.pread(event.fds[0].fileno(), 9, 0) == text
            event.close()


async def test_descriptors_that_were_never_sent_are_closed_with_the_channel() -> None:
    async with connected() as (channel, _, _):
        channel.send("segment", {"text": LARGE})
        with memfd(b"audio") as fd:
            channel.send("job", {"key": 1}, [fd, fd])


@pytest.mark.parametrize("over", [False, True])
async def test_a_peer_that_leaves_more_than_the_bound_unread_is_cut_off(over: bool) -> None:
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


async def test_one_answer_may_wait_however_large_it_is() -> None:
    async with connected(output_max=1000) as (channel, peer, _):
        channel.send("segment", {"text": LARGE})
        assert (await peer.event()).data == {"text": LARGE}
        assert not channel.overflowed


async def test_flush_waits_for_the_peer_and_no_longer_than_it_is_told() -> None:
    async with connected() as (channel, peer, _):
        await channel.flush(PATIENCE)
        channel.send("segment", {"text": LARGE})
        await channel.flush(0)
        assert " unread=0 " not in repr(channel)
        async with anyio.create_task_group() as reading:
            reading.start_soon(peer.event)
            await channel.flush(PATIENCE)
            assert " unread=0 " in repr(channel)


@pytest.mark.parametrize("leave", ["channel", "peer"])
async def test_whoever_leaves_while_output_is_under_way_leaves_nothing_behind(leave: str) -> None:
    async with connected() as (channel, peer, _):
        channel.send("segment", {"text": LARGE})
        with memfd(b"audio") as fd:
            channel.send("job", {"key": 1}, [fd])
        await anyio.lowlevel.checkpoint()
        (channel if leave == "channel" else peer).close()
        await channel.flush(PATIENCE)
        assert " unread=0 " in repr(channel)


async def test_sending_never_raises() -> None:
    async with connected() as (channel, peer, _):
        peer.close()
        channel.send("ping")
        channel.send("ping", {"text": LARGE})
        assert await channel.receive() is None
        channel.close()
        channel.send("ping")
        channel.close()
        channel.shutdown()


async def test_an_end_in_the_middle_of_an_event_is_told() -> None:
    async with connected() as (channel, peer, _):
        peer.sock.sendall(frames.encode("pong") + b'{"type"')
        peer.sock.shutdown(socket.SHUT_WR)
        event = await channel.receive()
        assert event is not None
        with pytest.raises(ProtocolError, match="ended in the middle of an event"):
            await channel.receive()


async def test_an_event_that_does_not_arrive_whole_in_time_is_an_error() -> None:
    async with connected(frame_timeout=0.01) as (channel, peer, _):
        peer.sock.sendall(frames.encode("pong") + b'{"type"')
        assert await channel.receive() is not None
        with pytest.raises(ProtocolError, match=r"an event took longer than 0\.01 s to arrive"):
            await channel.receive()


class TestByAVirtualClock:
    """Where the time matters, it is the test's own (trio alone has such a clock)."""

    @pytest.fixture
    def clock(self) -> trio.testing.MockClock:
        return trio.testing.MockClock()

    @pytest.fixture
    def anyio_backend(self, clock: trio.testing.MockClock) -> object:
        return "trio", {"clock": clock}

    async def test_many_small_events_are_not_one_slow_one(
        self, clock: trio.testing.MockClock
    ) -> None:
        """The channel never sees a moment between two events, and each comes slowly, but in
        time."""
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

    async def test_the_bytes_of_one_slow_event_do_not_win_it_time(
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

    async def test_silence_between_two_events_may_last(self, clock: trio.testing.MockClock) -> None:
        async with connected(frame_timeout=3) as (channel, peer, tasks):
            tasks.start_soon(self._count, channel, 2)
            for _ in range(2):
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(5)
                peer.sock.sendall(frames.encode("ping"))
            await trio.testing.wait_all_tasks_blocked()
