"""What a peer, or a machine that has run out of something, may do to the front's parts."""

import errno
import logging
import os
import socket
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import anyio
import anyio.abc
import pytest
import trio.testing

from asrd.errors import BadAudio, Busy, ProtocolError
from asrd.front.discovery import WorkerDirectory
from asrd.front.reporting.crashes import Crash, JobRef
from asrd.front.scheduling.job import Job
from asrd.front.scheduling.quota import Quota
from asrd.front.scheduling.scheduler import Scheduler
from asrd.front.spool import ClientFile, SpooledAudio
from asrd.front.worker_connection import WorkerConnection
from asrd.settings import FrontSettings
from asrd.systemd import Notifier
from asrd.wire import frames
from asrd.wire.connection import BufferBudget, Connection
from asrd.wire.peer import Peer
from tests.support.raw import memfd


def _exhausted(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.EMFILE, "Too many open files")


def test_finding_a_duplicate_key_takes_no_longer_than_reading_the_keys() -> None:
    """One event with 25,000 keys, the last two the same, once held the event loop for 19 s; so many
    are refused now, and of those that may be the search must not compare all with all."""
    keys = [f'"{number:04x}":1' for number in range(frames.MAX_VALUES - 1)]
    raw = ("{" + ",".join([*keys, keys[-1]]) + "}").encode()
    decoder = frames.Decoder(frames.FrameLimits())
    decoder.receive(b'{"type": "ping", "data_length": %d}\n' % len(raw) + raw)
    started = time.process_time()
    with pytest.raises(ProtocolError, match="'1ffe' stands there twice"):
        decoder.next_frame()
    # It takes some 10 ms; only the quadratic search takes longer than this.
    assert time.process_time() - started < 1


@contextmanager
def _channel(
    tasks: anyio.abc.TaskGroup,
    output_max: int = 1 << 30,
    kept: BufferBudget | None = None,
    owner: int = 1,
) -> Iterator[tuple[Connection, socket.socket]]:
    """A channel, and the socket at its other end, which nobody reads."""
    ours, theirs = socket.socketpair()
    decoder, buffer = frames.Decoder(frames.FrameLimits()), memoryview(bytearray(4096))
    channel = Connection(
        ours, decoder, tasks, buffer, output_max=output_max, kept=kept, owner=owner
    )
    try:
        with theirs:
            yield channel, theirs
    finally:
        channel.close()


# More than the kernel keeps for a peer that does not read.
_LARGE = {"text": "x" * 1_000_000}


def test_a_descriptor_that_cannot_be_kept_for_later_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def send() -> None:
        async with anyio.create_task_group() as tasks:
            with _channel(tasks) as (channel, _), memfd(b"audio") as fd:
                channel.send("filler", _LARGE)
                monkeypatch.setattr(os, "dup", _exhausted)
                channel.send("job", {}, [fd.fileno()])
                assert await channel.receive() is None

    anyio.run(send)


def test_one_answer_may_be_larger_than_the_bound_of_unread_ones() -> None:
    def read_all(peer: socket.socket) -> int:
        size = 0
        while size < 1_000_000:
            size += len(peer.recv(1 << 20))
        return size

    async def send() -> None:
        async with anyio.create_task_group() as tasks:
            with _channel(tasks, output_max=1000) as (channel, peer):
                channel.send("transcript", _LARGE)
                size = await anyio.to_thread.run_sync(read_all, peer)
                assert size > 1_000_000
                await channel.flush(10)
                assert channel.unread == 0
                channel.send("transcript", _LARGE)
                assert not channel.overflowed
                channel.send("pong")
                assert channel.overflowed
                assert channel.unread == 0
                assert await channel.receive() is None

    anyio.run(send)


def test_who_has_most_unread_is_cut_off_for_all() -> None:
    async def send() -> None:
        kept = BufferBudget(3_000_000)
        async with anyio.create_task_group() as tasks:
            with (
                _channel(tasks, kept=kept) as (greedy, _),
                _channel(tasks, kept=kept) as (modest, _),
            ):
                for channel in (greedy, greedy, modest):
                    channel.send("transcript", _LARGE)
                assert not greedy.overflowed
                assert kept.total == greedy.unread + modest.unread
                modest.send("transcript", {"text": "x" * 900_000})
                assert (greedy.overflowed, modest.overflowed) == (True, False)
                assert kept.total == modest.unread
            assert kept.total == 0

    anyio.run(send)


def test_small_unread_answers_take_no_more_memory_than_their_bytes() -> None:
    async def send() -> None:
        async with anyio.create_task_group() as tasks:
            with _channel(tasks) as (channel, _):
                channel.send("filler", _LARGE)
                tracemalloc.start()
                for _ in range(20_000):
                    channel.send("pong")
                taken, _ = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                assert channel.unread > 20_000 * 30
                assert taken < 2 * channel.unread

    anyio.run(send)


def test_a_recording_without_a_descriptor_is_busy_once_it_is_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "memfd_create", _exhausted)
    spool = Quota(100, 100, "bytes")
    recording = SpooledAudio(spool, 1, 100)
    recording.write(memoryview(b"audio"))
    with pytest.raises(Busy, match="Too many open files"):
        recording.seal()
    recording.close()
    assert spool.used == 0


def test_a_full_memory_is_busy_and_gives_back_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    written: list[int] = []

    def half(fd: int, data: memoryview) -> int:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(write(fd, data[: len(data) // 2]))
        return written[0]

    monkeypatch.setattr(os, "write", half)
    spool = Quota(100, 100, "bytes")
    recording = SpooledAudio(spool, 1, 100)
    recording.write(memoryview(b"ab"))
    assert (len(written), spool.used) == (1, 0)
    with pytest.raises(Busy, match="No space left"):
        recording.seal()
    recording.close()
    assert spool.used == 0


def test_a_file_that_may_not_be_looked_at_is_bad_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    fd = memfd(b"audio")
    with monkeypatch.context() as patch, pytest.raises(BadAudio, match="cannot be looked at"):
        patch.setattr(os, "fstat", _exhausted)
        ClientFile(fd, 100)
    with pytest.raises(ValueError):
        fd.fileno()


def test_workers_are_those_whose_names_may_stand_in_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = [".sock", "..sock", "a\nb.sock", "a b.sock", "é.sock", "\udcff.sock", "x" * 70 + ".sock"]
    for name in ["0.sock", r"gpu-1.large\x2dv3.sock", "0.socket", *odd]:
        (tmp_path / name).touch()
    directory = WorkerDirectory(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        found = directory.look()
        directory.look()
    assert found == {
        "0": tmp_path / "0.sock",
        r"gpu-1.large\x2dv3": tmp_path / r"gpu-1.large\x2dv3.sock",
    }
    assert len(caplog.records) == len(odd)


def test_workers_stay_while_their_directory_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "0.sock").touch()
    directory = WorkerDirectory(str(tmp_path))
    found = directory.look()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", _exhausted)
        assert directory.look() == directory.look() == found
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    (tmp_path / "0.sock").unlink()
    assert directory.look() == {}
    tmp_path.rmdir()
    assert directory.look() == {}


def test_a_status_text_is_one_line_that_the_manager_takes(manager: socket.socket) -> None:
    notifier = Notifier()
    notifier.status("worker 0: no model\nWATCHDOG=trigger\n" + "\N{SNOWMAN}" * 5000)
    told = manager.recv(1 << 16)
    notifier.close()
    assert told.startswith(rb"STATUS=worker 0: no model\nWATCHDOG=trigger\n" + b"\xe2\x98\x83")
    assert b"\n" not in told
    assert len(told) < 4096


def test_a_manager_that_does_not_read_holds_up_nobody(manager: socket.socket) -> None:
    notifier = Notifier()
    notifier.ready()
    # More than any queue of datagrams holds.
    for number in range(5000):
        notifier.status(f"number {number}")
        notifier.watchdog()
    notifier.close()
    assert [manager.recv(100) for _ in range(2)] == [b"READY=1", b"STATUS=number 0"]


def test_a_link_outlives_a_bug_of_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Owner:
        called = 0

        def worker_failed(self, link: WorkerConnection, *_: object) -> None:
            self.called += 1
            if self.called == 1:
                raise RuntimeError("a bug")
            link.close()

    owner = Owner()

    async def keep() -> None:
        async with anyio.create_task_group() as tasks:
            path = tmp_path / "0.sock"
            await WorkerConnection("0", path, cast(Any, owner), tasks, memoryview(b"")).run()

    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(keep, backend="trio", backend_options={"clock": clock})
    assert owner.called == 2
    assert "RuntimeError: a bug" in caplog.text


def test_the_jobs_of_a_dead_worker_are_named_to_their_users_alone() -> None:
    jobs = tuple(JobRef(name, Peer(1, uid, 1)) for name, uid in (("mine", 1000), ("whose", 65534)))
    death = Crash("0", 0.0, 0.0, "it closed", jobs)

    def told(uid: int) -> str:
        return death.told_to(Peer(pid=1, uid=uid, gid=1))

    assert told(0) == "it closed, running job mine, job whose"
    assert told(1000) == "it closed, running job mine, 1 of others"
    assert told(1001) == "it closed, running 2 of others"
    # Users without a number in our namespace are not one user.
    assert told(65534) == "it closed, running 2 of others"


def test_a_worker_that_gives_every_job_back_cannot_keep_one_for_ever() -> None:
    scheduler = Scheduler(FrontSettings(max_wait_seconds=30))
    scheduler.worker_added("0", 0.0)
    job = Job(user=0, arrival=0.0)
    scheduler.submit(job, 0.0)
    for now in range(1, 30, 5):
        scheduler.worker_ready("0", "m", float(now))
        assert job.worker == "0"
        scheduler.worker_left("0", False, now + 1.0)
        assert not job.ended
    scheduler.tick(30.0)
    assert job.ended
