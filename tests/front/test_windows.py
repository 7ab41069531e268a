"""Jobs that workers decode window by window: what the client gets if they die, lie or leave."""

import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from asrd.errors import Code
from asrd.front.reporting import snapshot
from asrd.front.request import Finished
from asrd.wire import frames
from asrd.wire.fds import OwnedFd
from asrd.wire.fields import parse
from asrd.wire.peer import Peer
from asrd.wire.records import Checkpoint
from asrd.wire.turn_word import TurnWord
from asrd.wire.worker_events import JOBS_MAX
from tests.support.raw import HELLO, done, memfd
from tests.support.users import ALICE, BOB, PCM, ROOT, User, Users, users

pytestmark = pytest.mark.anyio

SECOND = b"\x00\x01" * 16_000


class Worker:
    """A worker that a test plays, after its `hello`."""

    def __init__(self, made: Users, name: str = "0", fds: tuple[int, ...] = (), **hello: Any):
        self.peer = made.play_worker(name)
        self.peer.send("hello", {**HELLO, "slots": 4, **hello}, fds=fds)

    async def job(self) -> dict[str, Any]:
        event = await self.peer.event()
        assert event.type == "job", event
        event.close()
        return event.data

    def window(self, key: int, sent: int, *texts: str, frame: int = 3000) -> None:
        """A window after which the front has `sent` segments."""
        self.peer.send("window", window(key, sent, *texts, frame=frame))

    def done(self, key: int, *texts: str) -> None:
        self.peer.send("done", {**done(key, "".join(texts)), "segments": segments(*texts)})

    async def die(self) -> None:
        """Ends the connection, and waits until the front has noticed."""
        self.peer.sock.shutdown(socket.SHUT_WR)
        while not await self.peer.at_end():
            pass


def segments(*texts: str) -> list[dict[str, Any]]:
    return [{"id": 1, "start": 0, "end": 1, "text": text} for text in texts]


def window(key: int, sent: int, *texts: str, frame: int = 3000) -> dict[str, Any]:
    checkpoint = {"frame": frame, "seconds": frame / 100, "segments": sent, "tokens": [7]}
    text = "".join(texts)
    return {"key": key, "checkpoint": checkpoint, "text": text, "segments": segments(*texts)}


def resumed(job: dict[str, Any]) -> tuple[int, int]:
    """The place from which a worker is to go on."""
    return job["resume"]["frame"], job["resume"]["segments"]


@asynccontextmanager
async def front(**settings: Any) -> AsyncIterator[Users]:
    """A front whose descriptors and transcripts are all gone in the end."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    async with users(**settings) as made:
        yield made
    assert made.front.transcripts.size == 0
    assert not made.front.transcripts._kept
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await anyio.sleep(0)


async def asked(user: User, job_id: str = "a", **options: Any) -> None:
    user.send("transcribe", {"job_id": job_id, "audio": PCM, **options}, SECOND)
    assert (await user.expect("accepted"))["job_id"] == job_id


# --- transcripts ----------------------------------------------------------------------------------


async def test_retry_goes_on_and_repeats_nothing() -> None:
    """After a retry, three of five streamed transcripts once mixed two attempts."""
    async with front() as made:
        first, alice = Worker(made), made.connect(ALICE)
        await asked(alice, stream=True)
        job = await first.job()
        assert "resume" not in job
        first.window(job["key"], 2, " one", " two")
        first.window(job["key"], 2, frame=6000)
        got = [await alice.expect("segment") for _ in range(2)]
        await first.die()
        second = Worker(made)
        job = await second.job()
        assert parse(Checkpoint, job["resume"]) == Checkpoint(6000, 60.0, 2, (7,))
        # Its worker died after the last window, so it may be the one to blame.
        assert job["suspect"]
        second.window(job["key"], 3, " three", frame=9000)
        second.done(job["key"], " four")
        got += [await alice.expect("segment") for _ in range(2)]
        transcript = await alice.expect("transcript")
        assert [(each["index"], each["attempt"]) for each in got] == [
            (0, 1),
            (1, 1),
            (2, 2),
            (3, 2),
        ]
        assert [each["segment"] for each in got] == transcript["segments"]
        assert transcript["text"] == "one two three four"
        assert transcript["attempts"] == 2


async def test_plain_client_gets_the_whole_text_and_nothing_else() -> None:
    async with front() as made:
        worker, alice = Worker(made), made.connect(ALICE)
        alice.send("audio-start", {"rate": 16_000, "width": 2, "channels": 1})
        alice.send("audio-chunk", {"rate": 16_000, "width": 2, "channels": 1}, SECOND)
        alice.send("audio-stop")
        key = (await worker.job())["key"]
        worker.window(key, 1, " one")
        worker.done(key, " two")
        assert (await alice.expect("transcript"))["text"] == "one two"


@pytest.mark.parametrize("decoded", [False, True])
async def test_only_the_same_model_goes_on(decoded: bool) -> None:
    """Another one has other tokens and languages: the text would be a mixture of two models."""
    async with front() as made:
        # Worker 0 comes first for a job that names no model.
        first, alice = Worker(made, "1"), made.connect(ALICE)
        await asked(alice, stream=True)
        key = (await first.job())["key"]
        if decoded:
            first.window(key, 1, " one")
            await alice.expect("segment")
        other = Worker(made, "0", model="other")
        await until(lambda: made.front.scheduler.workers["0"].ready)
        await first.die()
        if decoded:
            await until(lambda: not made.front.scheduler.workers["1"].ready)
            other = Worker(made, "1")
        other.done((await other.job())["key"])
        if not decoded:
            assert (await alice.expect("transcript"))["model"] == "other"
        else:
            assert (await alice.expect("transcript"))["model"] == HELLO["model"]


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancelled", "failed", "gone", "done"])
async def test_memory_of_a_transcript_is_free_after_any_end(how: str) -> None:
    async with front() as made:
        worker, alice = Worker(made), made.connect(ALICE)
        await asked(alice)
        key = (await worker.job())["key"]
        worker.window(key, 1, " one")
        await until(lambda: made.front.transcripts.size)
        match how:
            case "cancelled":
                alice.send("cancel", {"job_id": "a"})
            case "failed":
                worker.peer.send("failed", {"key": key, "code": "bad-audio", "text": "no"})
            case "gone":
                alice.close()
            case "done":
                worker.done(key)
        await until(lambda: not made.front.transcripts.size)
        if how in ("cancelled", "gone"):
            # The worker does not know yet, and its answer is dropped.
            await worker.peer.expect("cancel")
            worker.window(key, 2, " two")
            worker.done(key)
            await until(lambda: not made.front.scheduler.workers["0"].jobs)
            assert not made.front.transcripts.size


async def test_too_much_in_all_ends_the_largest_job_of_the_user_with_the_most() -> None:
    """Neither who adds the last bit is to blame, nor who has the largest of all."""
    async with front(transcripts_max_bytes=2900) as made:
        worker, alice, bob = Worker(made), made.connect(ALICE), made.connect(BOB)
        keys = {}
        for user, job_id in ((alice, "small"), (alice, "large"), (bob, "his")):
            await asked(user, job_id)
            keys[job_id] = (await worker.job())["key"]
            if job_id == "small":
                # A long one, so that there are places for both others.
                state = {"key": keys[job_id], "work_seconds": 0, "audio_seconds": 100}
                worker.peer.send("alive", {"jobs": [state]})
        worker.window(keys["small"], 1, "x" * 500)
        worker.window(keys["large"], 1, "x" * 550)
        worker.window(keys["his"], 1, "x" * 600)
        error = await alice.expect("error")
        assert (error["job_id"], error["code"]) == ("large", Code.OUT_OF_MEMORY)
        assert "transcripts_max_bytes (2900)" in error["text"]
        assert (await worker.peer.expect("cancel"))["key"] == keys["large"]
        for job_id, user in (("small", alice), ("his", bob)):
            worker.done(keys[job_id])
            assert (await user.expect("transcript"))["job_id"] == job_id


@pytest.mark.parametrize("kind", ["window", "done"])
async def test_transcript_that_fits_no_event_is_too_large(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front() as made:
        worker, alice = Worker(made), made.connect(ALICE)
        await asked(alice)
        key = (await worker.job())["key"]
        monkeypatch.setattr(frames, "MAX_TRANSCRIPT_DATA", 4000)
        # In the last part it is the answer's JSON that counts, where this takes six times as much.
        worker.window(key, 1, "\x01" * (2500 if kind == "window" else 400))
        if kind == "done":
            worker.done(key)
        error = await alice.expect("error")
        assert (error["code"], error["job_id"]) == (Code.TOO_LARGE, "a")
        assert "over the limit of 4000" in error["text"]


def test_windows_without_text_take_no_memory() -> None:
    finished = Finished()
    for _ in range(10_000):
        finished.add("", ())
    assert finished.size == 0
    for _ in range(10_000):
        finished.add("é", [{"a": 1}])
    taken = sys.getsizeof(finished.text) + sys.getsizeof(finished.segments)
    assert finished.size <= taken <= finished.size * 9 // 8 + 200


# --- lies -----------------------------------------------------------------------------------------

LIES: dict[str, Callable[[int], tuple[str, dict[str, Any]]]] = {
    "a window of another job": lambda key: ("window", window(key + 1, 2, " two")),
    "a window that goes back": lambda key: ("window", window(key, 2, " two", frame=2999)),
    "more segments than were sent": lambda key: ("window", window(key, 3, " two", frame=4000)),
    "fewer segments than were sent": lambda key: ("window", window(key, 0, " two", frame=4000)),
    "the state of another job": lambda key: (
        "alive",
        {"jobs": [{"key": key, "work_seconds": 1}, {"key": key + 1, "work_seconds": 1}]},
    ),
    "the state of too many jobs": lambda key: (
        "alive",
        {"jobs": [{"key": key, "work_seconds": 1}] * (JOBS_MAX + 1)},
    ),
    "a second hello": lambda key: ("hello", HELLO),
}


@pytest.mark.parametrize("lie", LIES)
async def test_worker_that_lies_counts_as_crashed_and_its_lie_not_at_all(lie: str) -> None:
    async with front() as made:
        liar, alice = Worker(made), made.connect(ALICE)
        await asked(alice, stream=True)
        key = (await liar.job())["key"]
        liar.window(key, 1, " one")
        await alice.expect("segment")
        liar.peer.send(*LIES[lie](key))
        assert await liar.peer.at_end()
        (crash,) = made.front.crashes
        assert crash.noticed.startswith("it broke the protocol: ")
        honest = Worker(made)
        job = await honest.job()
        assert resumed(job) == (3000, 1)
        honest.done(job["key"], " three")
        assert (await alice.expect("segment"))["index"] == 1
        assert (await alice.expect("transcript"))["text"] == "one three"


async def test_window_after_the_answer_is_a_breach() -> None:
    async with front() as made:
        liar, alice = Worker(made), made.connect(ALICE)
        await asked(alice)
        key = (await liar.job())["key"]
        liar.done(key)
        liar.window(key, 1, " one")
        assert await liar.peer.at_end()
        await alice.expect("transcript")
        await alice.ping()
        assert made.front.connections["0"].info.restarts == 1


async def test_lies_at_one_place_do_not_hide_that_a_job_kills_workers() -> None:
    """A window sets a job's deaths to 0, but not one that is refused."""
    async with front(max_attempts=2) as made:
        alice = made.connect(ALICE)
        await asked(alice)
        for _ in range(2):
            liar = Worker(made)
            liar.window((await liar.job())["key"], 5, " one")
            assert await liar.peer.at_end()
        assert (await alice.expect("error"))["code"] == Code.WORKER_CRASHED


# --- the turn word --------------------------------------------------------------------------------


def word(key: int) -> OwnedFd:
    made = TurnWord.create()
    made.write(key)
    return made.fd


# By the job with the turn: the descriptor, and whether the jobs `a` and `b` are suspects then.
WORDS: dict[str, tuple[Callable[[int], OwnedFd | None], bool, bool]] = {
    "b": (word, False, True),
    "no job": (lambda key: word(0), True, True),
    "an unknown job": (lambda key: word(key + 9), True, True),
    "a truncated word": (lambda key: memfd(b""), True, True),
    "no word": (lambda key: None, True, True),
}


@pytest.mark.parametrize("what", WORDS)
async def test_job_with_the_turn_is_to_blame(what: str) -> None:
    make, *suspects = WORDS[what]
    async with front() as made:
        alice = made.connect(ALICE)
        # The front numbers the starts from 1.
        fd = make(2)
        worker = Worker(made, fds=() if fd is None else (fd.fileno(),))
        if fd is not None:
            fd.close()
        for job_id in "ab":
            await asked(alice, job_id)
            await worker.job()
        await worker.die()
        following = Worker(made)
        jobs = [await following.job() for _ in range(2)]
        found = {job["job_id"]: bool(job.get("suspect")) for job in jobs}
        assert found == dict(zip("ab", suspects, strict=True))


@pytest.mark.parametrize("count", [1, 2])
async def test_wrong_turn_word_is_refused_and_closed(count: int) -> None:
    async with front() as made:
        end, other = os.pipe()
        try:
            worker = Worker(made, fds=(end,) * count)
            assert await worker.peer.at_end()
        finally:
            os.close(end)
            os.close(other)
        (crash,) = made.front.crashes
        assert (
            "no memory file" if count == 1 else "fds: 2 is over the limit of 1"
        ) in crash.noticed


# --- ends that are no crash, and the watchdog's ---------------------------------------------------


async def test_worker_that_leaves_over_a_cancelled_job_has_not_crashed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Four of four clients that hung up during a slow window once made the daemon degraded."""
    async with front() as made:
        worker, alice, bob = Worker(made), made.connect(ALICE), made.connect(BOB)
        await asked(alice, "a")
        await asked(bob, "b")
        await worker.job()
        key = (await worker.job())["key"]
        worker.window(key, 1, " one")
        alice.send("cancel", {"job_id": "a"})
        await alice.expect("error")
        await worker.peer.expect("cancel")
        with caplog.at_level(logging.INFO, "asrd.front"):
            worker.peer.send("bye", {"reason": "cancelled"})
            assert await worker.peer.at_end()
        reason = "it ended itself: a cancelled job did not stop"
        assert f"worker 0: {reason}" in caplog.messages
        (row,) = snapshot.snapshot(made.front, Peer(7, ROOT, ROOT), anyio.current_time())["workers"]
        assert (row["reason"], row["restarts"], row["last_death"]) == (reason, 0, None)
        assert not [*made.front.crashes]
        following = Worker(made)
        job = await following.job()
        assert (job["job_id"], job.get("suspect", False)) == ("b", False)
        assert resumed(job) == (3000, 1)
        assert made.front.connections["0"].info.ended is None


async def test_client_and_log_learn_of_the_watchdog(caplog: pytest.LogCaptureFixture) -> None:
    async with front(max_attempts=1) as made:
        worker, alice = Worker(made), made.connect(ALICE)
        await asked(alice)
        await worker.job()
        worker.peer.send("alive", {"stalled_seconds": 130.4})
        await until(lambda: made.front.connections["0"].info.stalled_seconds)
        await worker.die()
        text = "it made no progress for 130 s"
        error = await alice.expect("error")
        assert error["code"] == Code.WORKER_CRASHED
        assert text in error["text"]
        assert any(f"lost: {text}, running job a" in message for message in caplog.messages)
        # The next one ends for another reason.
        made.play_worker().close()
        await until(lambda: made.front.connections["0"].info.restarts == 2)
        first, second = made.front.crashes
        assert (first.noticed, second.noticed) == (text, "its connection ended without notice")


async def test_breach_of_a_stalled_worker_is_reported_as_such() -> None:
    async with front() as made:
        worker = Worker(made)
        worker.peer.send("alive", {"stalled_seconds": 130})
        worker.peer.send("hello", HELLO)
        assert await worker.peer.at_end()
        (crash,) = made.front.crashes
        assert crash.noticed == "it broke the protocol: hello after hello"
