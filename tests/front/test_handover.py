"""The hand-over of clients and jobs from one front to the next, in one process."""

import contextlib
import json
import os
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from asrd.errors import Code
from asrd.front.handover import packets
from asrd.front.handover.giving import collect, finish_short_jobs, give
from asrd.front.handover.taking import Taken, take, turn_away
from asrd.front.session import Session
from asrd.wire import frames
from asrd.wire.connection import Connection
from asrd.wire.fds import OwnedFd
from tests.support.raw import HELLO, done, memfd, window
from tests.support.users import ALICE, PCM, START, User, users

pytestmark = pytest.mark.anyio

SECOND = b"\x00\x01" * 16_000
UPLOAD = frames.encode("transcribe", {"job_id": "b", "audio": PCM}, len(SECOND)) + SECOND
ARRIVED = len(UPLOAD) - 1001


@dataclass
class Handed:
    """A state, its descriptors, and the clients by what they do."""

    data: dict[str, Any]
    fds: list[OwnedFd]
    users: dict[str, User]

    def client(self, name: str) -> dict[str, Any]:
        """Returns the state of one client."""
        found: dict[str, Any] = self.data["clients"][self.data["jobs"][0]["client"]]
        if name != "waits":
            others = [client for client in self.data["clients"] if client is not found]
            (found,) = (client for client in others if _does(client) == name)
        return found


def _does(client: dict[str, Any]) -> str:
    if "payload" in client:
        return "uploads"
    return "streams" if "arriving" in client["stream"] else "is idle"


@asynccontextmanager
async def handed() -> AsyncIterator[Handed]:
    """Yields what a front gives that ends with four clients."""
    async with users() as made:
        names = ("waits", "uploads", "streams", "is idle")
        clients = {name: made.connect(ALICE) for name in names}
        asked = {"job_id": "a", "audio": PCM, "timeout_ms": 100_000}
        clients["waits"].send("transcribe", asked, SECOND)
        await clients["waits"].expect("accepted")
        clients["uploads"].send_raw(UPLOAD[:ARRIVED])
        clients["streams"].send("audio-start", START)
        clients["streams"].send("audio-chunk", START, SECOND)
        for name in ("streams", "is idle"):
            await clients[name].ping()
        found = collect(made.front)
        fds = [OwnedFd(os.dup(fd)) for fd in found.fds]
        made._users.clear()
        made._tasks.cancel_scope.cancel()
    given = Handed(json.loads(found.state), fds, clients)
    try:
        yield given
    finally:
        for user in clients.values():
            user.close()


@asynccontextmanager
async def next_front(given: Handed, raw: bytes | None = None) -> AsyncIterator[list[Taken]]:
    async with users() as made, anyio.create_task_group() as tasks:

        def connect(sock: socket.socket, session: Session) -> Connection:
            decoder = frames.Decoder(session.door.limits, session.open_sink)
            return Connection(sock, decoder, tasks, made._buffer, output_max=1 << 20)

        raw = json.dumps(given.data).encode() if raw is None else raw
        taken = take(made.front, connect, given.fds, raw, anyio.current_time())
        for session, connection in taken:
            tasks.start_soon(session.run, connection)
        try:
            yield taken
        finally:
            tasks.cancel_scope.cancel()
            for _, connection in taken:
                connection.close()


async def goes_on(user: User, name: str) -> None:
    """The client finishes what it had begun, in the next front."""
    if name == "waits":
        user.send("cancel", {"job_id": "a"})
        assert (await user.expect("error"))["code"] == Code.CANCELLED
    elif name == "uploads":
        user.send_raw(UPLOAD[ARRIVED:])
        await user.expect("accepted")
    elif name == "streams":
        user.send("audio-stop")
    await user.ping()


async def is_refused(user: User) -> None:
    error = await user.expect("error")
    assert (error["code"], error["retryable"]) == (Code.SHUTTING_DOWN, True)
    assert await user.at_end()


async def test_every_client_goes_on_where_it_was() -> None:
    async with handed() as given, next_front(given) as taken:
        assert len(taken) == len(given.users)
        for name, user in given.users.items():
            await goes_on(user, name)


@pytest.mark.parametrize("name", ["waits", "uploads", "streams", "is idle"])
@pytest.mark.parametrize(
    "damage",
    [
        {"door": "unknown"},
        {"door": None},
        {"fd": 10_000},
        {"partial": {}},
        {"output": 7},
        {"output": "\u1234"},
        {"stream": None},
        {"waiting": [10_000]},
        {"payload": {"fd": 10_000}},
    ],
    ids=str,
)
async def test_damaged_client_gets_an_error_and_no_other(name: str, damage: dict[str, Any]) -> None:
    async with handed() as given:
        given.client(name).update(damage)
        async with next_front(given):
            for other, user in given.users.items():
                if other == name:
                    await is_refused(user)
                else:
                    await goes_on(user, other)


@pytest.mark.parametrize(
    "damage",
    [{"audio": 10_000}, {"audio": None}, {"options": None}, {"user": []}, {"count": -1}],
    ids=str,
)
async def test_damaged_job_fails_and_its_connection_stays(damage: dict[str, Any]) -> None:
    async with handed() as given:
        given.data["jobs"][0].update(damage)
        async with next_front(given):
            error = await given.users["waits"].expect("error")
            assert (error["code"], error["job_id"]) == (Code.SHUTTING_DOWN, "a")
            await given.users["waits"].ping()
            await goes_on(given.users["uploads"], "uploads")


async def test_file_that_cannot_be_inspected_costs_only_its_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One on a network file system that is gone, say."""
    async with handed() as given:
        gone, whole = given.data["jobs"][0], os.fstat
        others = {**gone, "job_id": "c", "audio": len(given.fds)}
        given.fds.append(memfd(SECOND))
        given.data["jobs"].append(others)
        number = given.fds[gone["audio"]].fileno()

        def fstat(fd: int) -> os.stat_result:
            if fd == number:
                raise OSError(116, "Stale file handle")
            return whole(fd)

        monkeypatch.setattr(os, "fstat", fstat)
        async with next_front(given):
            client = given.users["waits"]
            assert (await client.expect("error"))["job_id"] == "a"
            client.send("cancel", {"job_id": "c"})
            assert (await client.expect("error"))["code"] == Code.CANCELLED


async def test_state_is_little_larger_than_what_clients_have_sent() -> None:
    async with users() as made:
        client = made.connect(ALICE)
        client.send_raw(b'{"type": "x", "data_length": 262144}\n' + bytes(200_000))
        await made.connect(ALICE).ping()
        await anyio.sleep(0.05)
        assert 200_000 < len(collect(made.front).state) < 300_000


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"format": 2, "clients": [], "jobs": []}'])
async def test_state_of_another_version_gets_every_client_an_error(raw: bytes) -> None:
    async with handed() as given, next_front(given, raw) as taken:
        assert not taken
        for user in given.users.values():
            await is_refused(user)


async def test_front_with_wrong_settings_turns_every_client_away() -> None:
    async with handed() as given:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            packets.send(ours, [fd.fileno() for fd in given.fds], b"{}")
        for fd in given.fds:
            fd.close()
        turn_away([theirs])
        for user in given.users.values():
            await is_refused(user)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yields each container in the data with each of its keys."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


@pytest.mark.parametrize("seed", range(20))
async def test_any_damage_leaves_no_client_in_silence(seed: int) -> None:
    chance = random.Random(seed)
    async with handed() as given:
        for _ in range(chance.randint(1, 3)):
            container, key = chance.choice(list(_places(given.data)))
            container[key] = chance.choice([None, -1, 0, 1, 2**40, 1.5, "", "x", [], {}, True])
        async with next_front(given) as taken:
            served = {session.connection for session, _ in taken}
            assert len(served) == len(taken)
            refused = len(given.users) - len(taken)
            for user in given.users.values():
                if refused and await _ends(user):
                    refused -= 1
            assert refused == 0


async def _ends(user: User) -> bool:
    """Returns True if the connection ends with an error."""
    user.sock.setblocking(False)
    try:
        head = user.sock.recv(4096, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return b'"error"' in head


@pytest.mark.parametrize("problem", [BrokenPipeError(), MemoryError()], ids=repr)
async def test_failed_hand_over_gets_every_job_an_error(
    problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise problem

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    if not isinstance(problem, OSError):
        monkeypatch.setattr(packets, "send", fail)
    async with users() as made:
        client = made.connect(ALICE)
        client.send("transcribe", {"job_id": "a", "audio": PCM}, SECOND)
        await client.expect("accepted")
        with ours:
            assert not give(made.front, ours)
        assert (await client.expect("error"))["code"] == Code.SHUTTING_DOWN


async def test_running_job_keeps_its_windows() -> None:
    async with users() as made:
        client, worker = made.connect(ALICE), made.play_worker("1")
        worker.send("hello", HELLO)
        asked = {"job_id": "a", "audio": PCM, "stream": True}
        client.send("transcribe", asked, SECOND * 2)
        with contextlib.closing(await worker.event()) as job_event:
            key = job_event.data["key"]
        worker.send("window", window(key, "one"))
        for kind in ("accepted", "segment"):
            await client.expect(kind)
        (job,) = json.loads(collect(made.front).state)["jobs"]
        assert (job["text"], job["count"], job["kept"]) == ("one", 1, 30.0)
        assert job["checkpoint"]["frame"] == 3000
        # The worker's late answer is nobody's.
        worker.send("done", done(key))


async def test_short_job_that_runs_ends_before_the_hand_over() -> None:
    finished = anyio.Event()

    async def finish() -> None:
        await finish_short_jobs(made.front)
        finished.set()

    async with users() as made, anyio.create_task_group() as tasks:
        client, worker = made.connect(ALICE), made.play_worker("1")
        worker.send("hello", HELLO)
        for job_id in ("runs", "waits"):
            client.send("transcribe", {"job_id": job_id, "audio": PCM}, SECOND)
        with contextlib.closing(await worker.event()) as job_event:
            tasks.start_soon(finish)
            await anyio.sleep(0)
            assert not finished.is_set()
            worker.send("done", done(job_event.data["key"]))
        while (await client.event()).type != "transcript":
            pass
        await finished.wait()
        # The other one would have to begin again.
        (job,) = json.loads(collect(made.front).state)["jobs"]
        assert (job["job_id"], job["attempts"]) == ("waits", 0)


async def test_rest_of_a_live_stream_that_ends_meanwhile_still_starts() -> None:
    async with users() as made, anyio.create_task_group() as tasks:
        client, worker = made.connect(ALICE), made.play_worker("1")
        worker.send("hello", HELLO)
        client.send("transcribe", {"job_id": "runs", "audio": PCM}, SECOND)
        with contextlib.closing(await worker.event()) as job_event:
            await client.expect("accepted")
            tasks.start_soon(finish_short_jobs, made.front)
            await anyio.sleep(0)
            client.send("transcribe", {"job_id": "rest", "audio": PCM}, SECOND)
            await client.expect("accepted")
            (rest,) = made.front.scheduler.queue
            rest.request.text = object()
            worker.send("done", done(job_event.data["key"]))
        with anyio.fail_after(0.9):
            (await worker.event()).close()
        rest.request.text = None


def test_state_without_its_end_counts_for_nothing() -> None:
    """The front that ended could not store everything."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open(os.devnull, "rb") as file:
        packets.send(ours, [file.fileno()] * 600, b"state")
        fds, state = packets.receive(theirs)
        assert (len(fds), state) == (600, b"state")
        for fd in fds:
            fd.close()
        ours.sendmsg([b"fds"])
        assert packets.receive(theirs) == ([], None)
