"""What one user can do to another: take no more than a share, learn nothing, end nothing."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio.testing

from asrd.errors import Code
from asrd.front.scheduling.workers import WorkerState
from asrd.journal import LineFormatter
from tests.support.users import ALICE, BOB, PCM, ROOT, START, User, Users, users

pytestmark = pytest.mark.anyio

SECOND = b"\x00\x01" * 16_000


def ask(user: User, job_id: str, payload: bytes = SECOND) -> None:
    user.send("transcribe", {"job_id": job_id, "audio": PCM}, payload)


async def refused(user: User) -> tuple[str, str]:
    error = await user.expect("error")
    return error["code"], error["text"]


# --- shares ---------------------------------------------------------------------------------------


async def test_the_jobs_of_a_user_are_bounded_over_all_connections() -> None:
    async with users(queue_max=10, jobs_max_per_user=2) as made:
        first, second, bob = made.connect(ALICE), made.connect(ALICE), made.connect(BOB)
        ask(first, "a")
        await first.expect("accepted")
        ask(second, "b")
        await second.expect("accepted")
        ask(second, "c")
        assert await refused(second) == (Code.BUSY, "2 jobs of user 1000 are unanswered")
        ask(bob, "a")
        await bob.expect("accepted")
        # An answer makes room again.
        first.send("cancel", {"job_id": "a"})
        assert (await refused(first))[0] == Code.CANCELLED
        ask(second, "c")
        await second.expect("accepted")


async def test_a_job_that_is_too_late_when_it_comes_is_accepted_first_and_forgotten() -> None:
    """A front that was not scheduled for a millisecond told its error first, and kept it."""
    async with users(queue_max=10, jobs_max_per_user=1) as made:
        submit = made.front.scheduler.submit
        made.front.scheduler.submit = lambda job, now: submit(job, now + 1)  # type: ignore
        alice = made.connect(ALICE)
        for job_id in "ab":
            alice.send("transcribe", {"job_id": job_id, "audio": PCM, "timeout_ms": 1}, SECOND)
            assert (await alice.expect("accepted"))["job_id"] == job_id
            assert (await refused(alice))[0] == Code.DEADLINE_EXCEEDED


async def test_who_waits_in_the_queue_is_bounded_by_user() -> None:
    async with users(queue_max=10, queue_max_per_user=1) as made:
        alice, bob = made.connect(ALICE), made.connect(BOB)
        ask(alice, "a")
        await alice.expect("accepted")
        ask(alice, "b")
        assert await refused(alice) == (
            Code.BUSY,
            "the limit for user 1000 is reached (1 waiting jobs)",
        )
        ask(bob, "b")
        await bob.expect("accepted")


async def test_the_inline_audio_of_a_user_leaves_room_for_that_of_others() -> None:
    size = len(SECOND)
    async with users(
        queue_max=10, spool_max_bytes=3 * size, spool_max_bytes_per_user=2 * size
    ) as made:
        alice, again, bob = made.connect(ALICE), made.connect(ALICE), made.connect(BOB)
        ask(alice, "a")
        ask(alice, "b")
        await alice.expect("accepted")
        await alice.expect("accepted")
        ask(again, "c")
        code, text = await refused(again)
        assert (code, "bytes of inline audio" in text) == (Code.BUSY, True)
        ask(bob, "a")
        await bob.expect("accepted")
        assert made.front._spool.used == 3 * size
    assert made.front._spool.used == 0


# --- secrets --------------------------------------------------------------------------------------


async def test_a_cancel_ends_and_tells_nothing_of_another_users_job() -> None:
    """Whether there is such a job can't be told from the answer."""
    async with users(queue_max=10) as made:
        alice, bob, root = made.connect(ALICE), made.connect(BOB), made.connect(ROOT)
        ask(alice, "secret")
        await alice.expect("accepted")
        for job_id in ("secret", "none"):
            bob.send("cancel", {"job_id": job_id})
            assert await bob.expect("cancelled") == {"job_id": job_id, "jobs": 0}
        assert made.front._unanswered.count(ALICE) == 1
        root.send("cancel", {"job_id": "secret"})
        assert await root.expect("cancelled") == {"job_id": "secret", "jobs": 1}
        assert await refused(alice) == (
            Code.CANCELLED,
            "it was cancelled from another connection",
        )


async def test_one_job_id_may_be_in_use_by_many_users_at_once() -> None:
    async with users(queue_max=10) as made:
        alice, bob = made.connect(ALICE), made.connect(BOB)
        for user in (alice, bob):
            ask(user, "same")
            assert (await user.expect("accepted"))["job_id"] == "same"
        alice.send("cancel", {"job_id": "same"})
        assert (await refused(alice))[0] == Code.CANCELLED
        assert made.front._unanswered.count(BOB) == 1


@pytest.mark.parametrize("question", ["status", "describe", "ping"])
@pytest.mark.parametrize("restricted", [True, False])
async def test_no_answer_to_a_question_names_another_users_job(
    question: str, restricted: bool
) -> None:
    async with users(queue_max=10) as made:
        alice, bob = made.connect(ALICE), made.connect(BOB, restricted)
        private = {"job_id": "secret", "trace_id": "hidden", "initial_prompt": "private"}
        alice.send("transcribe", {**private, "audio": PCM}, SECOND)
        await alice.expect("accepted")
        alice.send("transcribe", {**private, "audio": PCM}, SECOND)
        await refused(alice)
        bob.send(question)
        kind = {"status": "status", "describe": "info", "ping": "pong"}[question]
        said = json.dumps(await bob.expect(kind))
        assert not any(word in said for word in private.values())


async def test_a_stranger_may_ask_and_nothing_else() -> None:
    async with users() as made:
        stranger = made.connect(BOB, restricted=True)
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


async def test_a_peer_without_credentials_ends_and_sees_its_own_connections_jobs_alone() -> None:
    """All of them have the same user id, (uid_t) -1: they once passed for one user."""
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


async def test_the_jobs_of_one_address_are_bounded_as_those_of_one_user() -> None:
    async with users(queue_max=10, jobs_max_per_user=1) as made:
        one, same, far = (made.connect_from(f"192.0.2.{host}") for host in (1, 1, 2))
        ask(one, "a")
        await one.expect("accepted")
        ask(same, "b")
        assert await refused(same) == (Code.BUSY, "1 jobs of address 192.0.2.1 are unanswered")
        ask(far, "c")
        await far.expect("accepted")


# --- recordings that are still on their way -------------------------------------------------------


async def test_the_audio_of_a_refused_transcribe_is_not_transcribed() -> None:
    """It was, with options that nobody had asked for, after the refusal."""
    async with users(queue_max=10) as made:
        alice = made.connect(ALICE)
        alice.send("transcribe", {"job_id": "a", "language": "x" * 40})
        alice.send("audio-start", START)
        alice.send("audio-chunk", START, SECOND)
        alice.send("audio-stop")
        alice.send("ping")
        error = await alice.expect("error")
        assert (error["code"], error["job_id"]) == (Code.BAD_REQUEST, "a")
        await alice.expect("pong")
        assert not made.front.metrics.accepted
        # The next recording is another matter.
        alice.send("transcribe", {"job_id": "b"})
        alice.send("audio-start", START)
        alice.send("audio-chunk", START, SECOND)
        alice.send("audio-stop")
        assert (await alice.expect("accepted"))["job_id"] == "b"


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_cancel_reaches_a_recording_on_its_way(started: bool, elsewhere: bool) -> None:
    async with users(queue_max=10) as made:
        alice, again, bob = made.connect(ALICE), made.connect(ALICE), made.connect(BOB)
        alice.send("transcribe", {"job_id": "a", "trace_id": "t"})
        if started:
            alice.send("audio-start", START)
            alice.send("audio-chunk", START, SECOND)
        alice.send("ping")
        await alice.expect("pong")
        bob.send("cancel", {"job_id": "a"})
        assert (await bob.expect("cancelled"))["jobs"] == 0
        (again if elsewhere else alice).send("cancel", {"job_id": "a"})
        if elsewhere:
            assert (await again.expect("cancelled"))["jobs"] == 1
        error = await alice.expect("error")
        told = error["code"], error["job_id"], error["trace_id"]
        assert told == (Code.CANCELLED, "a", "t")
        assert made.front._spool.used == 0
        # What still comes of it is nobody's fault, and no job.
        if not started:
            alice.send("audio-start", START)
        alice.send("audio-chunk", START, SECOND)
        alice.send("audio-stop")
        alice.send("ping")
        await alice.expect("pong")
        assert not made.front.metrics.accepted


def test_questions_keep_no_recording_alive() -> None:
    """A ping every now and then once held the memory of a recording for ever."""

    async def stall() -> None:
        async with users(frame_timeout_seconds=10) as made:
            alice = made.connect(ALICE)
            alice.send("audio-start", START)
            alice.send("audio-chunk", START, SECOND)
            for _ in range(2):
                alice.send("ping")
                await alice.expect("pong")
                await anyio.sleep(6)
            text = "nothing came for 10 s in the middle of a recording"
            assert await refused(alice) == (Code.BAD_REQUEST, text)
            assert made.front._spool.used == 0

    run_fast(stall)


@pytest.mark.parametrize("seconds", [28, 40])
def test_a_recording_takes_no_longer_than_the_longest_may_last(seconds: int) -> None:
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
                text = "audio: it took longer to come than 20 s"
                assert await refused(alice) == (Code.TOO_LARGE, text)

    run_fast(trickle)


def run_fast(scenario: object) -> None:
    """On a clock that jumps to when something is due. What comes over a socket takes no time."""

    async def limited() -> None:
        await scenario()  # type: ignore[operator]

    clock = trio.testing.MockClock(autojump_threshold=0.01)
    anyio.run(limited, backend="trio", backend_options={"clock": clock})


def test_describe_waits_for_a_silent_worker_no_longer_than_it_must() -> None:
    async def ask_twice() -> None:
        async with users() as made:
            made.front.links["0"].info.found_at = started = anyio.current_time()
            alice, bob = made.connect(ALICE), made.connect(BOB)
            alice.send("describe")
            bob.send("ping")
            await bob.expect("pong")
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


def fail_the_worker(made: Users) -> None:
    now = anyio.current_time()
    made.front._perform(
        made.front.scheduler.worker_failed("0", WorkerState.FAILED, "no model", now)
    )


@pytest.mark.parametrize("what", WRONG)
async def test_a_plain_conversation_ends_with_its_one_error(what: str) -> None:
    """Some clients wait for a transcript or the end of the connection, and hang on an error."""
    async with users() as made:
        if what == "a worker that has failed":
            fail_the_worker(made)
        alice = made.connect(ALICE)
        for event in WRONG[what]:
            # A client reads nothing before it has sent all: its writing must not break.
            alice.send(*event)
            await anyio.lowlevel.checkpoint()
        alice.send("audio-stop")
        await alice.expect("error")
        assert await alice.at_end()


@pytest.mark.parametrize("what", WRONG)
async def test_others_keep_their_connection_and_get_one_error_as_well(what: str) -> None:
    async with users() as made:
        if what == "a worker that has failed":
            fail_the_worker(made)
        alice = made.connect(ALICE)
        first, *rest = WRONG[what]
        asked = first[1] if first[0] == "transcribe" else {}
        alice.send("transcribe", {**asked, "job_id": "a"})
        for event in rest if first[0] == "transcribe" else WRONG[what]:
            alice.send(*event)
        alice.send("audio-stop")
        await alice.expect("error")
        alice.send("ping")
        await alice.expect("pong")


async def test_a_recording_beside_a_plain_error_gets_its_answer_first() -> None:
    async with users(queue_max=10) as made:
        alice = made.connect(ALICE)
        alice.send("audio-start", START)
        alice.send("audio-chunk", START, SECOND)
        alice.send("audio-stop")
        alice.send("audio-chunk", START, SECOND)
        assert (await refused(alice))[0] == Code.BAD_REQUEST
        alice.send("ping")
        await alice.expect("pong")
        fail_the_worker(made)
        assert (await refused(alice))[0] == Code.UNAVAILABLE
        assert await alice.at_end()


async def test_a_plain_client_that_hangs_up_leaves_nothing() -> None:
    async with users() as made:
        alice = made.connect(ALICE)
        alice.send("audio-start", START)
        alice.send("audio-chunk", START, SECOND)
        alice.send("audio-stop")
        alice.send("ping")
        await alice.expect("pong")
        assert made.front._unanswered.count(ALICE) == 1
        alice.sock.close()
        while made.front.sessions:
            await anyio.sleep(0.01)
        assert (made.front._unanswered.count(ALICE), made.front._spool.used) == (0, 0)


async def test_a_client_that_goes_on_sending_after_the_end_is_heard_out() -> None:
    async with users() as made:
        alice = made.connect(ALICE)
        alice.send("audio-start", ODD)
        await alice.expect("error")
        assert await alice.at_end()
        for _ in range(3):
            alice.send("audio-chunk", ODD, SECOND)
            alice.send("transcribe", {"audio": PCM}, SECOND)
            await anyio.sleep(0.01)
        assert (made.front.metrics.accepted, made.front._spool.used) == (0, 0)


async def test_a_plain_recording_without_audio_has_an_empty_transcript() -> None:
    async with users() as made:
        alice = made.connect(ALICE)
        for _ in range(2):
            alice.send("transcribe", {"language": "en"})
            alice.send("audio-start", START)
            alice.send("audio-stop")
            transcript = await alice.expect("transcript")
            assert (transcript["text"], transcript["language"]) == ("", "en")


# --- the log --------------------------------------------------------------------------------------

EVIL = "\n<0>2026-01-01 fake: entry\r\x1b[31m\x00\u202e\ud800"


async def test_nothing_a_client_says_makes_a_second_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
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


async def test_half_a_character_is_refused_and_said_in_whole_ones() -> None:
    async with users() as made:
        alice = made.connect(ALICE)
        raw = b'{"text": "\\ud800"}'
        alice.send_raw(b'{"type": "ping", "data_length": %d}\n' % len(raw) + raw)
        code, text = await refused(alice)
        assert code == Code.BAD_REQUEST
        assert text.isascii()
        assert await alice.at_end()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("transcribe", {"name": "m" * 256, "job_id": "a", "audio": PCM}),
        ("transcribe", {"task": "x" * 200_000}),
        ("transcribe", {"job_id": "x" * 200_000}),
        ("transcribe", {"audio": {"encoding": "x" * 200_000}}),
        ("transcribe", {"temperature": ["x" * 100_000]}),
        ("cancel", {"job_id": "x" * 200_000}),
        ("audio-start", {"rate": "x" * 200_000}),
    ],
)
async def test_an_error_repeats_little_of_what_it_is_about(kind: str, data: object) -> None:
    async with users() as made:
        alice = made.connect(ALICE)
        made.front.scheduler.worker_ready("0", "tiny", anyio.current_time())
        assert isinstance(data, dict)
        alice.sock.setblocking(True)
        alice.send(kind, data, SECOND if data.get("name") else b"")
        alice.sock.setblocking(False)
        _, text = await refused(alice)
        assert len(text) < 600


# --- descriptors ----------------------------------------------------------------------------------


async def test_descriptors_in_plenty_are_refused_and_none_is_kept() -> None:
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
