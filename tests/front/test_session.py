"""Clients of one front: what each gets, and what it can do to another. No process, no root."""

import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio.testing

from asrd.errors import Code
from asrd.front.doors import MAIN, STATUS
from asrd.front.scheduling.workers import WorkerState
from asrd.journal import LineFormatter
from tests.support.users import ALICE, BOB, PCM, ROOT, START, User, Users, users

pytestmark = pytest.mark.anyio

SECOND = b"\x00\x01" * 16_000


def ask(user: User, job_id: str, payload: bytes = SECOND) -> None:
    user.send("transcribe", {"job_id": job_id, "audio": PCM}, payload)


def record(user: User) -> None:
    user.send("audio-start", START)
    user.send("audio-chunk", START, SECOND)
    user.send("audio-stop")


async def refused(user: User) -> tuple[str, str]:
    error = await user.expect("error")
    return error["code"], error["text"]


# --- quotas ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [False, True])
async def test_jobs_of_a_user_are_limited_over_all_connections(address: bool) -> None:
    """Without credentials, one address counts as one user."""
    async with users(queue_max=10, jobs_max_per_user=2) as made:
        if address:
            first, second, other = map(made.connect_from, ["192.0.2.1", "192.0.2.1", "192.0.2.2"])
        else:
            first, second, other = map(made.connect, [ALICE, ALICE, BOB])
        for user, job_id in ((first, "a"), (second, "b")):
            ask(user, job_id)
            await user.expect("accepted")
        ask(second, "c")
        name = "address 192.0.2.1" if address else "user 1000"
        assert await refused(second) == (Code.BUSY, f"2 jobs of {name} are unanswered")
        ask(other, "a")
        await other.expect("accepted")
        # An answer makes room again.
        first.send("cancel", {"job_id": "a"})
        assert (await refused(first))[0] == Code.CANCELLED
        ask(second, "c")
        await second.expect("accepted")


async def test_recordings_of_strangers_take_half_of_the_memory() -> None:
    """However many addresses they have."""
    limits = {"spool_max_bytes": 160_000, "spool_max_bytes_per_user": 160_000}
    async with users(queue_max=10, **limits) as made:
        strangers = [made.connect_from(f"192.0.2.{number}") for number in range(3)]
        for stranger in strangers:
            stranger.send("audio-start", START)
            stranger.send("audio-chunk", START, SECOND)
            await stranger.ping()
        strangers[2].send("audio-stop")
        text = "the limit for all clients is reached (bytes of inline audio over Wyoming: 80000)"
        assert await refused(strangers[2]) == (Code.BUSY, f"audio-stop: {text}")
        member = made.connect(ALICE)
        ask(member, "mine", SECOND * 2)
        await member.expect("accepted")


async def test_strangers_fill_half_of_the_queue_and_no_place_of_others() -> None:
    """However many addresses they have: one for each job here."""
    async with users(queue_max=4) as made:
        strangers = [made.connect_from(f"192.0.2.{number}") for number in range(3)]
        for stranger in strangers[:2]:
            ask(stranger, "a")
            await stranger.expect("accepted")
        ask(strangers[2], "a")
        text = "the limit for all clients is reached (waiting jobs over Wyoming: 2)"
        assert await refused(strangers[2]) == (Code.BUSY, text)
        member = made.connect(ALICE)
        for job_id in ("a", "b"):
            ask(member, job_id)
            await member.expect("accepted")


async def test_users_of_a_gateway_have_quotas_of_their_own() -> None:
    """Root may speak for others, and so may those in `gateways`; nobody else may."""
    async with users(queue_max=10, jobs_max_per_user=1, gateways=(str(BOB),)) as made:
        gateway, other = made.connect(BOB), made.connect(ROOT)
        for client, user, job_id in (
            (gateway, "ann", "a"),
            (gateway, "tom", "b"),
            (other, "ann", "c"),
        ):
            client.send("transcribe", {"job_id": job_id, "user": user, "audio": PCM}, SECOND)
            await client.expect("accepted")
        gateway.send("transcribe", {"job_id": "d", "user": "ann", "audio": PCM}, SECOND)
        full = f"1 jobs of user ann of user {BOB} are unanswered"
        assert await refused(gateway) == (Code.BUSY, full)
        stranger = made.connect(ALICE)
        stranger.send("transcribe", {"job_id": "a", "user": "ann", "audio": PCM}, SECOND)
        text = "transcribe: user: may be named by a gateway only (setting `gateways`)"
        assert await refused(stranger) == (Code.BAD_REQUEST, text)


async def test_job_that_is_overdue_when_it_comes_is_accepted_first_and_forgotten() -> None:
    """A front that was not scheduled for a millisecond sent the error first, and kept the job."""
    async with users(queue_max=10, jobs_max_per_user=1) as made:
        submit = made.front.scheduler.submit
        made.front.scheduler.submit = lambda job, now: submit(job, now + 1)  # type: ignore
        alice = made.connect(ALICE)
        for job_id in "ab":
            alice.send("transcribe", {"job_id": job_id, "audio": PCM, "timeout_ms": 1}, SECOND)
            assert (await alice.expect("accepted"))["job_id"] == job_id
            assert (await refused(alice))[0] == Code.DEADLINE_EXCEEDED


# --- secrets --------------------------------------------------------------------------------------


async def test_cancel_neither_ends_nor_reveals_another_users_job() -> None:
    async with users(queue_max=10) as made:
        alice, bob, root = made.connect(ALICE), made.connect(BOB), made.connect(ROOT)
        ask(alice, "secret")
        await alice.expect("accepted")
        for job_id in ("secret", "none"):
            bob.send("cancel", {"job_id": job_id})
            assert await bob.expect("cancelled") == {"job_id": job_id, "jobs": 0}
        assert made.front.unanswered[ALICE] == 1
        root.send("cancel", {"job_id": "secret"})
        assert await root.expect("cancelled") == {"job_id": "secret", "jobs": 1}
        assert await refused(alice) == (
            Code.CANCELLED,
            "the job was cancelled from another connection",
        )


async def test_two_users_may_use_one_job_id() -> None:
    async with users(queue_max=10) as made:
        alice, bob = made.connect(ALICE), made.connect(BOB)
        for user in (alice, bob):
            ask(user, "same")
            assert (await user.expect("accepted"))["job_id"] == "same"
        alice.send("cancel", {"job_id": "same"})
        assert (await refused(alice))[0] == Code.CANCELLED
        assert made.front.unanswered[BOB] == 1


@pytest.mark.parametrize("door", [MAIN, STATUS])
async def test_no_answer_to_a_question_names_another_users_job(door: str) -> None:
    async with users(queue_max=10) as made:
        alice, bob = made.connect(ALICE), made.connect(BOB, door)
        private = {"job_id": "secret", "trace_id": "hidden", "initial_prompt": "private"}
        alice.send("transcribe", {**private, "audio": PCM}, SECOND)
        await alice.expect("accepted")
        alice.send("transcribe", {**private, "audio": PCM}, SECOND)
        await refused(alice)
        for question, answer in (("status", "status"), ("describe", "info"), ("ping", "pong")):
            bob.send(question)
            data = json.dumps(await bob.expect(answer))
            assert not any(word in data for word in private.values())


async def test_public_socket_answers_questions_and_nothing_else() -> None:
    async with users() as made:
        stranger = made.connect(BOB, STATUS)
        for kind, data in (
            ("transcribe", {"audio": PCM}),
            ("transcribe", {}),
            ("audio-start", START),
            ("audio-chunk", START),
            ("audio-stop", {}),
            ("cancel", {"job_id": "a"}),
        ):
            stranger.send(kind, data)
            text = f"{kind}: this socket answers status, ping and describe"
            assert await refused(stranger) == (Code.BAD_REQUEST, text)
        assert not made.front.metrics.accepted


async def test_peer_without_credentials_sees_only_its_connections_jobs() -> None:
    """All of them have the same user id, (uid_t) -1: they once counted as one user."""
    async with users(queue_max=10) as made:
        one, other, root = made.connect_from("::1"), made.connect_from("::1"), made.connect(ROOT)
        ask(one, "secret")
        await one.expect("accepted")
        other.send("transcribe", {"job_id": "coming"})
        other.send("cancel", {"job_id": "secret"})
        assert (await other.expect("cancelled"))["jobs"] == 0
        one.send("cancel", {"job_id": "coming"})
        assert (await one.expect("cancelled"))["jobs"] == 0
        root.send("cancel", {"job_id": "secret"})
        assert (await root.expect("cancelled"))["jobs"] == 1
        assert (await refused(one))[0] == Code.CANCELLED


# --- streams -------------------------------------------------------------------------------------


async def test_audio_of_a_refused_transcribe_is_not_transcribed() -> None:
    """It was, with default options, after the refusal."""
    async with users(queue_max=10) as made:
        alice = made.connect(ALICE)
        alice.send("transcribe", {"job_id": "a", "language": "x" * 40})
        record(alice)
        alice.send("ping")
        error = await alice.expect("error")
        assert (error["code"], error["job_id"]) == (Code.BAD_REQUEST, "a")
        await alice.expect("pong")
        assert not made.front.metrics.accepted
        # The next stream is accepted.
        alice.send("transcribe", {"job_id": "b"})
        record(alice)
        assert (await alice.expect("accepted"))["job_id"] == "b"


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_cancel_ends_a_stream_that_is_arriving(started: bool, elsewhere: bool) -> None:
    async with users(queue_max=10) as made:
        alice, again, bob = made.connect(ALICE), made.connect(ALICE), made.connect(BOB)
        alice.send("transcribe", {"job_id": "a", "trace_id": "t"})
        if started:
            alice.send("audio-start", START)
            alice.send("audio-chunk", START, SECOND)
        await alice.ping()
        bob.send("cancel", {"job_id": "a"})
        assert (await bob.expect("cancelled"))["jobs"] == 0
        (again if elsewhere else alice).send("cancel", {"job_id": "a"})
        if elsewhere:
            assert (await again.expect("cancelled"))["jobs"] == 1
        error = await alice.expect("error")
        assert (error["code"], error["job_id"], error["trace_id"]) == (Code.CANCELLED, "a", "t")
        assert made.front.spool.used == 0
        # The rest of it is skipped.
        if not started:
            record(alice)
        await alice.ping()
        assert not made.front.metrics.accepted


@pytest.mark.parametrize("ids", [{}, {"job_id": "a"}])
async def test_stream_that_another_one_replaces_is_cancelled(ids: dict[str, str]) -> None:
    """A client that knows only Wyoming takes an error for its answer, and gets none."""
    async with users(queue_max=10) as made:
        alice = made.connect(ALICE)
        alice.send("transcribe", ids)
        alice.send("audio-start", START)
        alice.send("audio-chunk", START, SECOND)
        record(alice)
        if ids:
            error = await alice.expect("error")
            assert (error["code"], error["job_id"]) == (Code.CANCELLED, "a")
        await alice.ping()
        assert (made.front.metrics.accepted, made.front.spool.used) == (1, len(SECOND))


def test_questions_keep_no_stream_alive() -> None:
    """A ping now and then once kept the memory of a stream."""

    async def stall() -> None:
        async with users(frame_timeout_seconds=10) as made:
            alice = made.connect(ALICE)
            alice.send("audio-start", START)
            alice.send("audio-chunk", START, SECOND)
            for _ in range(2):
                await alice.ping()
                await anyio.sleep(6)
            text = "no audio chunk arrived for 10 s in the middle of a recording"
            assert await refused(alice) == (Code.BAD_REQUEST, text)
            assert made.front.spool.used == 0

    run_fast(stall)


@pytest.mark.parametrize("seconds", [28, 40])
def test_stream_must_arrive_within_the_longest_duration(seconds: int) -> None:
    async def trickle() -> None:
        async with users(frame_timeout_seconds=10, max_audio_seconds=20) as made:
            alice = made.connect(ALICE)
            alice.send("transcribe", {"job_id": "a"})
            alice.send("audio-start", START)
            for _ in range(seconds // 4):
                alice.send("audio-chunk", START, b"\x00\x01")
                await anyio.sleep(4)
            alice.send("audio-stop")
            if seconds < 30:
                await anyio.sleep(1)
                assert made.front.metrics.accepted == 1
            else:
                text = "audio: the stream took longer to arrive than 20 s"
                assert await refused(alice) == (Code.TOO_LARGE, text)

    run_fast(trickle)


def run_fast(scenario: Callable[[], Awaitable[None]]) -> None:
    """On a clock that jumps to the next deadline. Traffic over a socket takes no time."""
    clock = trio.testing.MockClock(autojump_threshold=0.01)
    anyio.run(scenario, backend="trio", backend_options={"clock": clock})


def test_describe_waits_a_limited_time_for_a_silent_worker() -> None:
    async def ask_twice() -> None:
        async with users() as made:
            made.front.connections["0"].info.found_at = started = anyio.current_time()
            # One that cannot load its model has nothing to report.
            made.add_worker("1").found_at = started + 3
            fail_the_worker(made, "1")
            alice, bob = made.connect(ALICE), made.connect(BOB)
            alice.send("describe")
            await bob.ping()
            assert (await alice.expect("info"))["asr"][0]["models"] == []
            assert anyio.current_time() - started == 5
            bob.send("describe")
            await bob.expect("info")
            assert anyio.current_time() - started == 5

    run_fast(ask_twice)


# --- Wyoming's own clients ------------------------------------------------------------------------

ODD = {**START, "width": 4}
WRONG: dict[str, list[tuple[Any, ...]]] = {
    "odd bytes": [("transcribe", {}), ("audio-start", START), ("audio-chunk", START, b"odd")],
    "an unknown task": [("transcribe", {"task": "sing"}), ("audio-start", START)],
    "wide samples": [("audio-start", ODD), *[("audio-chunk", ODD, b"wide")] * 5],
    "another rate": [
        ("audio-start", START),
        *[("audio-chunk", {**START, "rate": 8000}, SECOND)] * 3,
    ],
    "no start": [("audio-chunk", START, SECOND)],
    "a worker that has failed": [("audio-start", START), ("audio-chunk", START, SECOND)],
}


def fail_the_worker(made: Users, name: str = "0") -> None:
    now = anyio.current_time()
    made.front._perform(
        made.front.scheduler.worker_failed(name, WorkerState.FAILED, "no model", now)
    )


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("plain", [True, False])
async def test_wrong_stream_gets_one_error(what: str, plain: bool) -> None:
    """Then a plain conversation ends: some clients wait for a transcript or the end, and know no
    error."""
    async with users() as made:
        if what == "a worker that has failed":
            fail_the_worker(made)
        alice = made.connect(ALICE)
        events = WRONG[what]
        if not plain:
            options = events[0][1] if events[0][0] == "transcribe" else {}
            alice.send("transcribe", {**options, "job_id": "a"})
            events = [event for event in events if event[0] != "transcribe"]
        for event in events:
            # A client reads nothing before it has sent all: its writing must not break.
            alice.send(*event)
            await anyio.lowlevel.checkpoint()
        alice.send("audio-stop")
        await alice.expect("error")
        if plain:
            assert await alice.at_end()
        else:
            await alice.ping()


async def test_plain_error_waits_for_the_answer_of_an_accepted_stream() -> None:
    async with users(queue_max=10) as made:
        alice = made.connect(ALICE)
        record(alice)
        alice.send("audio-chunk", START, SECOND)
        assert (await refused(alice))[0] == Code.BAD_REQUEST
        await alice.ping()
        fail_the_worker(made)
        assert (await refused(alice))[0] == Code.UNAVAILABLE
        assert await alice.at_end()


async def test_plain_client_that_leaves_leaves_nothing_behind() -> None:
    async with users() as made:
        alice = made.connect(ALICE)
        record(alice)
        await alice.ping()
        assert made.front.unanswered[ALICE] == 1
        alice.sock.close()
        while made.front.clients:
            await anyio.sleep(0.01)
        assert (made.front.unanswered[ALICE], made.front.spool.used) == (0, 0)


async def test_client_may_go_on_sending_after_the_end() -> None:
    async with users() as made:
        alice = made.connect(ALICE)
        alice.send("audio-start", ODD)
        await alice.expect("error")
        assert await alice.at_end()
        for _ in range(3):
            alice.send("audio-chunk", ODD, SECOND)
            alice.send("transcribe", {"audio": PCM}, SECOND)
            await anyio.sleep(0.01)
        assert (made.front.metrics.accepted, made.front.spool.used) == (0, 0)


async def test_plain_stream_without_audio_has_an_empty_transcript() -> None:
    async with users() as made:
        alice = made.connect(ALICE)
        for _ in range(2):
            alice.send("transcribe", {"language": "en"})
            alice.send("audio-start", START)
            alice.send("audio-stop")
            transcript = await alice.expect("transcript")
            assert (transcript["text"], transcript["language"]) == ("", "en")


# --- the log --------------------------------------------------------------------------------------


async def test_debug_log_shows_events_and_no_data(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "asrd.front.session"):
        async with users() as made:
            alice = made.connect(ALICE)
            alice.send("ping", {"text": "a secret"}, b"1234")
            await alice.expect("pong")
    assert caplog.messages == ["< ping payload=4 fds=0", "> pong"]


EVIL = "\n<0>2026-01-01 fake: entry\r\x1b[31m\x00\u202e\ud800"


async def test_no_event_makes_a_second_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with users(queue_max=10) as made:
        for data in (
            {"job_id": EVIL[:-1], "audio": PCM},
            {"job_id": "x" * 100_000, "audio": PCM},
            {"name": EVIL[:-1], "job_id": "named", "audio": PCM},
            {"trace_id": EVIL[:-1], "job_id": "a"},
            {"language": EVIL[:-1], "job_id": "a"},
            {"task": EVIL[:-1], "job_id": "a"},
            {"audio": {"encoding": EVIL[:-1]}},
            {EVIL[:-1]: 1, "audio": 3},
        ):
            alice = made.connect(ALICE)
            # Each is the first of its second, so that it is logged.
            made.front._refusals.logged_at = -1e9
            with caplog.at_level(logging.DEBUG):
                alice.send("transcribe", data, SECOND if "audio" in data else b"")
                alice.send("ping", {"text": EVIL[:-1]})
                await alice.expect("error" if data.get("job_id") != "named" else "accepted")
                assert await alice.expect("pong") == {"text": EVIL[:-1]}
    formatter = LineFormatter("asrd")
    assert len(caplog.records) > 5
    for record in caplog.records:
        line = formatter.format(record)
        assert line.isprintable(), line
        assert len(line) < 5000


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("transcribe", {"name": "m" * 256, "job_id": "a", "audio": PCM}),
        ("transcribe", {"task": "x" * 200_000}),
        ("transcribe", {"temperature": ["x" * 100_000]}),
        ("audio-start", {"rate": "x" * 200_000}),
    ],
)
async def test_error_repeats_little_of_the_event(kind: str, data: dict[str, Any]) -> None:
    async with users() as made:
        alice = made.connect(ALICE)
        made.front.scheduler.worker_ready("0", "tiny", anyio.current_time())
        alice.sock.setblocking(True)
        alice.send(kind, data, SECOND if data.get("name") else b"")
        alice.sock.setblocking(False)
        _, text = await refused(alice)
        assert len(text) < 600


# --- descriptors ----------------------------------------------------------------------------------


async def test_undeclared_descriptors_are_refused_and_closed() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    async with users() as made:
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            for count in (1, 4):
                alice = made.connect(ALICE)
                alice.send_raw(b'{"type": "ping"}\n', (null,) * count)
                await alice.expect("pong")
                assert (await refused(alice))[0] == Code.BAD_REQUEST
                assert await alice.at_end()
        finally:
            os.close(null)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
