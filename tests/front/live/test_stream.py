"""Live streams with a real front, and a worker that a test plays: nothing lost, nothing twice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from asrd.errors import Busy, Code
from asrd.front.live import steps
from asrd.front.live.stream import LiveStream
from asrd.front.reporting import snapshot
from asrd.front.scheduling.workers import WorkerState
from asrd.front.spool import SpooledAudio
from asrd.wire import frames
from asrd.wire.peer import Peer
from tests.support.live import VOCABULARY, Recognizer, Speaker, silence, speech
from tests.support.raw import HELLO, memfd
from tests.support.users import ALICE, BOB, PCM, START, Users, users

pytestmark = pytest.mark.anyio

TEXT = "one two two three no no no yes ten nine eight eight"
SECOND = b"\x00\x01" * 16_000


@asynccontextmanager
async def front(**settings: Any) -> AsyncIterator[Users]:
    """A front that keeps nothing in the end."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    async with users(**settings) as made:
        yield made
    await anyio.sleep(0)
    assert made.front.transcripts.size == made.front.spool.used == 0
    assert not made.front.transcripts._kept
    assert not len(made.front.unanswered) and not made.front.unanswered._streams
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@asynccontextmanager
async def serving(recognizer: Recognizer) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recognizer.serve)
        yield
        tasks.cancel_scope.cancel()


async def speak(speaker: Speaker, audio: bytes, seconds: float = 0.5) -> None:
    """Streams as if in real time: each chunk is decoded before the next one comes."""
    size = int(32_000 * seconds)
    for place in range(0, len(audio), size):
        await speaker.say(audio[place : place + size], seconds)
        await settle(speaker)


async def settle(speaker: Speaker) -> None:
    """Waits until the front has handled all that was sent, and the worker, too."""
    await speaker.ping()
    scheduler = speaker.made.front.scheduler
    while any(job.step for job in (*scheduler.queue, *scheduler.running())):
        await anyio.sleep(0)
    await speaker.ping()


async def ready(made: Users) -> None:
    while not any(worker.ready for worker in made.front.scheduler.workers.values()):
        await anyio.sleep(0)


def state(made: Users) -> dict[str, Any]:
    return snapshot.snapshot(made.front, Peer(None, 0, 0), anyio.current_time())


def jobs(made: Users) -> dict[str, Any]:
    found = state(made)
    return {"live_steps": found["live_steps"], **found["jobs"]}


# --- the text -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [250, 1000, 3000])
async def test_text_comes_while_the_audio_arrives(step: int) -> None:
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        async with serving(worker):
            alice.begin(job_id="a", live_step_ms=step, language="en")
            assert await alice.hear("transcript-start") == {"job_id": "a", "language": "en"}
            await speak(alice, speech(TEXT))
            early = alice.text
            transcript = await alice.end()
        assert len(early.split()) >= 12 - 2 * (step / 500 + 2)
        assert transcript["text"] == alice.text == TEXT
        assert alice.kinds[-2:] == ["transcript", "transcript-stop"]
        chunks = [each for each in alice.chunks if each["text"]]
        segments = transcript["segments"]
        assert [each["text"] for each in segments] == [each["text"] for each in chunks]
        assert [each["start"] for each in segments] == [each["start"] for each in chunks]
        assert [each["id"] for each in segments] == list(range(1, len(chunks) + 1))
        words = [word for each in segments for word in each["words"]]
        assert [word["start"] for word in words] == [i * 0.5 for i in range(12)]
        assert transcript["duration_ms"] == 6000
        assert {each["job_id"] for each in alice.chunks} == {"a"} == {transcript["job_id"]}
        counts = jobs(made)
        assert (counts["accepted"], counts["done"], counts["failed"]) == (1, 1, {})
        assert counts["live_steps"] == len(worker.jobs) - 1 > 0
        assert state(made)["workers"][0]["jobs_done"] == 1


async def test_steps_are_short_jobs_with_words_and_without_surprises() -> None:
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        async with serving(worker):
            alice.begin(initial_prompt="Numbers.", hotwords="ten", timeout_ms=90_000)
            await speak(alice, speech(f"{TEXT} " * 4))
            await alice.end()
        first, last = worker.jobs[0]["options"], worker.jobs[-1]["options"]
        assert first == {
            "task": "transcribe",
            "word_timestamps": True,
            "temperature": 0.0,
            "condition_on_previous_text": False,
            "vad_filter": True,
            "initial_prompt": "Numbers.",
            "hotwords": "ten",
        }
        # The language is known, and so is the text before the tail.
        assert last["language"] == "en"
        assert last["initial_prompt"].startswith("Numbers. one two two")
        assert "temperature" not in last
        assert worker.seconds < 17
        assert not any(job.get("stream") for job in worker.jobs)


async def test_pending_text_is_sent_and_withdrawn() -> None:
    async with front() as made:
        alice = Speaker(made, ALICE)
        async with serving(Recognizer(made)):
            alice.begin(live_step_ms=250)
            await speak(alice, speech("one two") + silence(2), 0.25)
            await alice.end()
        pending = [each.get("pending") for each in alice.chunks]
        assert pending[0] == " hmm" and " one" in pending and pending[-1] is None


async def test_exact_transcript_is_that_of_the_whole_recording() -> None:
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        async with serving(worker):
            alice.begin(final="exact", beam_size=3)
            await speak(alice, speech(f"{TEXT} " * 4))
            before = alice.text
            transcript = await alice.end()
        assert before and alice.text == before
        assert transcript["text"].split() == TEXT.split() * 4
        assert worker.jobs[-1]["options"] == {"task": "transcribe", "beam_size": 3}
        assert worker.jobs[-1]["size"] == len(speech(f"{TEXT} " * 4))


@pytest.mark.parametrize("final", ["live", "exact"])
async def test_last_job_streams_only_the_whole_text(final: str) -> None:
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        async with serving(worker):
            alice.begin(final=final, stream=True)
            await speak(alice, speech(TEXT))
            kept = made.front.transcripts.size
            await alice.end()
        assert ("segment" in alice.kinds) == (final == "exact")
        # What the last job repeats is not kept.
        assert (kept == 0) == (final == "exact")


async def test_audio_that_comes_faster_than_speech_is_decoded_window_by_window() -> None:
    text = " ".join(VOCABULARY * 20)
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        async with serving(worker):
            alice.begin()
            audio = speech(text)
            for place in range(0, len(audio), 96_000):
                await alice.say(audio[place : place + 96_000], 3)
            transcript = await alice.end()
        assert transcript["text"] == alice.text == text


async def test_studio_stream_is_heard_too() -> None:
    form = {"rate": 48_000, "width": 2, "channels": 2}
    mono = speech(TEXT)
    wide = b"".join(mono[i : i + 2] * 6 for i in range(0, len(mono), 2))
    async with front() as made:
        alice = Speaker(made, ALICE)
        async with serving(Recognizer(made)):
            alice.user.send("transcribe", {"live": True})
            alice.user.send("audio-start", form)
            for place in range(0, len(wide), 64_000):
                alice.user.send("audio-chunk", form, wide[place : place + 64_000])
                await settle(alice)
            transcript = await alice.end()
        assert transcript["text"] == TEXT


# --- what may go wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(7))
async def test_worker_that_dies_costs_a_step_and_no_word(at: int) -> None:
    async with front() as made:
        alice = Speaker(made, ALICE)
        alice.begin(live_step_ms=1000)
        first = Recognizer(made)
        async with anyio.create_task_group() as tasks:

            async def serve() -> None:
                await first.serve(at)
                await first.take()
                await first.die()
                await Recognizer(made).serve()

            tasks.start_soon(serve)
            await speak(alice, speech(TEXT))
            transcript = await alice.end()
            tasks.cancel_scope.cancel()
        assert transcript["text"] == alice.text == TEXT
        # A step is no job.
        assert jobs(made)["retried"] == transcript["attempts"] - 1


async def test_step_that_kills_its_workers_ends_the_stream() -> None:
    """Also if the VAD's step is on the same worker: it is given back, and ends with the stream."""
    async with front() as made:
        alice = Speaker(made, ALICE)
        alice.begin(job_id="a", end_of_speech_ms=500)
        await alice.say(speech("one two three"))
        for _ in range(2):
            worker = Recognizer(made)
            await worker.take()
            await worker.take()
            await worker.die()
        error = await alice.failed()
        assert (error["code"], error["job_id"]) == (Code.WORKER_CRASHED, "a")
        counts = jobs(made)
        assert (counts["accepted"], counts["failed"]) == (1, {"worker-crashed": 1})
        # The rest is skipped, and the connection is still there.
        await alice.say(speech("four"))
        alice.user.send("audio-stop")
        async with serving(Recognizer(made)):
            alice.begin()
            await speak(alice, speech(TEXT))
            assert (await alice.end())["text"] == TEXT


async def test_steps_take_no_place_of_the_queue_and_wait_behind_jobs() -> None:
    async with front(queue_max=1) as made:
        queue = made.front.scheduler.queue
        speakers = [Speaker(made, ALICE) for _ in range(3)]
        for number, speaker in enumerate(speakers):
            speaker.begin(job_id=str(number), end_of_speech_ms=9000)
            await speaker.say(speech(TEXT))
        assert (len(list(queue)), len(queue), queue.oldest_arrival()) == (6, 0, None)
        final = made.connect(ALICE)
        for job_id in ("final", "late"):
            final.send("transcribe", {"audio": PCM, "job_id": job_id}, SECOND)
        assert await final.expect("accepted") == {"job_id": "final", "queue_depth": 0}
        error = await final.expect("error")
        assert (error["job_id"], error["code"]) == ("late", Code.BUSY)
        for _ in range(2):
            worker = Recognizer(made)
            assert [(await worker.take() or ({},))[0]["job_id"] for _ in range(2)] == ["final", "0"]
            (shown,) = state(made)["workers"]
            assert [each["audio_seconds"] for each in shown["jobs"]] == [1.0]
            if worker.jobs[0]["key"] == 1:
                # The final job was in its turn; the step was not.
                await worker.die()
        assert {"retried": 1, "suspended": 0}.items() <= jobs(made).items()


async def test_steps_of_a_full_queue_lose_no_word() -> None:
    async with front(queue_max=0) as made:
        alice = Speaker(made, ALICE)
        alice.begin()
        await alice.say(speech(TEXT))
        assert jobs(made)["refused"] == {} and not alice.chunks
        async with serving(Recognizer(made)):
            await ready(made)
            assert (await alice.end())["text"] == TEXT


async def test_late_step_is_skipped() -> None:
    async with front() as made:
        alice = Speaker(made, ALICE)
        alice.begin()
        await alice.say(speech(TEXT))
        await alice.ping()
        made.front._perform(made.front.scheduler.tick(anyio.current_time() + 1000))
        await alice.say(silence(1))
        await alice.ping()
        assert not alice.chunks and jobs(made)["failed"] == {}
        async with serving(Recognizer(made)):
            assert (await alice.end())["text"] == TEXT


def down(made: Users) -> None:
    """No worker can serve any more."""
    state, now = WorkerState.DOWN, anyio.current_time()
    made.front._perform(made.front.scheduler.worker_failed("0", state, "refused", now))


async def test_step_that_no_worker_can_serve_for_a_moment_is_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps of both kinds: those that were running, and those that came then."""
    monkeypatch.setattr(steps, "_LATER", 0)
    audio = speech(TEXT)
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        async with serving(worker):
            alice.begin(end_of_speech_ms=9000)
            await speak(alice, audio[:48_000])
        await alice.say(audio[48_000:96_000])
        assert await worker.take() and await worker.take()
        await worker.die()
        down(made)
        await alice.say(audio[96_000:128_000])
        before = alice.text
        async with serving(Recognizer(made)):
            await ready(made)
            await speak(alice, audio[128_000:])
            assert len(alice.text) > len(before)
            assert (await alice.end())["text"] == alice.text == TEXT
        assert (jobs(made)["failed"], jobs(made)["refused"]) == ({}, {})


async def test_step_that_no_worker_can_serve_for_long_ends_the_stream() -> None:
    async with front(max_wait_seconds=0.001) as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        async with serving(worker):
            alice.begin(job_id="a")
            await speak(alice, speech(TEXT))
        await worker.die()
        down(made)
        await anyio.sleep(0.01)
        await alice.say(speech(TEXT))
        error = await alice.failed()
        assert (error["code"], error["job_id"]) == (Code.UNAVAILABLE, "a")


@pytest.mark.parametrize(
    ("way", "code"),
    [
        ("cancel", Code.CANCELLED),
        ("foreign", Code.CANCELLED),
        ("disconnect", Code.CANCELLED),
        ("another", Code.CANCELLED),
        ("drain", Code.SHUTTING_DOWN),
        ("quiet", Code.BAD_REQUEST),
        ("wrong", Code.BAD_REQUEST),
        ("large", Code.TOO_LARGE),
    ],
)
async def test_stream_that_ends_early_leaves_nothing_and_counts_once(way: str, code: Code) -> None:
    limits: dict[str, dict[str, Any]] = {
        "quiet": {"frame_timeout_seconds": 0.2},
        "large": {"max_audio_seconds": 2},
    }
    async with front(**limits.get(way, {})) as made:
        alice, worker = Speaker(made, ALICE), Recognizer(made)
        alice.begin(job_id="a", end_of_speech_ms=1000)
        await alice.say(speech("one two three"))
        jobs_of_worker = [await worker.take() for _ in range(2)]
        assert len(jobs_of_worker) == 2
        assert made.front.unanswered[ALICE] == 1
        if way == "disconnect":
            alice.user.close()
            while len(made.front.unanswered):
                await anyio.sleep(0)
            assert _outcomes(made) == (1, {code: 1}, {})
            return
        if way == "another":
            alice.user.send("audio-start", START)
        elif way == "cancel":
            alice.user.send("cancel", {"job_id": "a"})
        elif way == "foreign":
            other = made.connect(ALICE)
            other.send("cancel", {"job_id": "a"})
            assert (await other.expect("cancelled"))["jobs"] == 1
        elif way == "drain":
            with anyio.move_on_after(0):
                await made.front.drain()
        elif way == "wrong":
            alice.user.send("audio-chunk", {**START, "rate": 8000}, SECOND)
        elif way == "large":
            alice.user.send("audio-chunk", START, SECOND)
        error = await alice.failed()
        assert (error["code"], error["job_id"]) == (code, "a")
        assert not len(made.front.unanswered)
        assert _outcomes(made) == (1, {code: 1}, {})


def _outcomes(made: Users) -> tuple[int, dict[str, int], dict[str, int]]:
    counts = jobs(made)
    return counts["accepted"], counts["failed"], counts["refused"]


async def test_stream_may_be_replaced_by_one_with_its_id() -> None:
    async with front() as made:
        alice = Speaker(made, ALICE)
        async with serving(Recognizer(made)):
            alice.begin(job_id="a")
            await speak(alice, speech("one two"))
            alice.begin(job_id="a")
            error = await alice.hear("error")
            assert (error["code"], error["job_id"]) == (Code.CANCELLED, "a")
            await speak(alice, speech("three four"))
            transcript = await alice.end()
        assert (transcript["text"], transcript["job_id"]) == ("three four", "a")
        assert _outcomes(made) == (2, {Code.CANCELLED: 1}, {})


async def test_job_id_that_is_not_answered_yet_begins_no_stream() -> None:
    async with front() as made:
        alice, worker = Speaker(made, ALICE), Recognizer(made)
        job = {"job_id": "a", "audio": PCM}
        alice.user.send("transcribe", job, speech("one"))
        await alice.hear("accepted")
        alice.begin(job_id="a")
        error = await alice.failed()
        assert (error["code"], error["job_id"]) == (Code.BAD_REQUEST, "a")
        assert error["text"].startswith("audio-start: job_id: 'a' names an unanswered job")
        # The rest is skipped, and the job goes on.
        await alice.say(speech("two"))
        alice.user.send("audio-stop")
        async with serving(worker):
            assert (await alice.hear("transcript"))["text"] == "one"
            alice.begin(job_id="a")
            # Nor does a stream's id begin a job.
            alice.user.send("transcribe", job, speech("one"))
            error = await alice.hear("error")
            assert error["text"].startswith("transcribe: job_id: 'a' names an unanswered job")
            await alice.say(speech("three"))
            assert (await alice.end())["text"] == "three"


async def test_last_job_of_a_stream_is_cancelled_as_any_other() -> None:
    async with front() as made:
        alice = Speaker(made, ALICE)
        alice.begin(job_id="a")
        await alice.say(speech(TEXT))
        alice.user.send("audio-stop")
        await alice.hear("accepted")
        alice.user.send("cancel", {"job_id": "a"})
        assert (await alice.failed())["code"] == Code.CANCELLED


async def test_live_stream_counts_as_a_job_of_its_user() -> None:
    async with front(jobs_max_per_user=1) as made:
        alice, again, bob = (Speaker(made, uid) for uid in (ALICE, ALICE, BOB))
        alice.begin()
        await alice.hear("transcript-start")
        again.begin(job_id="b")
        error = await again.failed()
        text = "audio-start: 1 jobs of user 1000 are unanswered"
        assert (error["code"], error["text"], error["job_id"]) == (Code.BUSY, text, "b")
        bob.begin()
        await bob.hear("transcript-start")
        # Its own job is not one more.
        async with serving(Recognizer(made)):
            await alice.say(speech(TEXT))
            assert (await alice.end())["text"] == TEXT


@pytest.mark.parametrize(
    "lie",
    [
        [{"id": 1, "start": 0, "end": 1, "text": " one"}],
        [{"id": 1, "start": 0, "end": 1, "text": " one", "words": [{"word": 7}]}],
        [{"text": " one"}],
        [{"id": 1, "start": 0, "end": 1, "text": "x" * 2000, "words": []}],
    ],
)
@pytest.mark.parametrize("last", [False, True])
async def test_wrong_answer_of_a_worker_ends_the_stream(
    monkeypatch: pytest.MonkeyPatch, lie: list[dict[str, Any]], last: bool
) -> None:
    monkeypatch.setattr(steps, "_ANSWER_MAX", 2000)
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        worker.answer = lambda job, audio: lie
        async with serving(worker):
            alice.begin(job_id="a")
            if last:
                await alice.say(speech("one"))
                alice.user.send("audio-stop")
                answer = await alice.hear("error", "transcript")
            else:
                await alice.say(speech(TEXT))
                answer = await alice.failed()
            assert answer["code"] == Code.INTERNAL
            assert "the answer of its worker is wrong: segments" in answer["text"]
        assert _outcomes(made) == (1, {Code.INTERNAL: 1}, {})
        assert jobs(made)["done"] == 0


async def test_text_counts_among_the_transcripts() -> None:
    async with front(transcripts_max_bytes=64 * 1024) as made:
        alice, worker = Speaker(made, ALICE), Recognizer(made)

        def talkative(job: dict[str, Any], audio: bytes) -> list[dict[str, Any]]:
            end = len(audio) / 32_000
            words = [
                {"start": 0, "end": i * end / 500, "word": f" {i:0100}", "probability": 1.0}
                for i in range(500)
            ]
            return [{"id": 1, "start": 0, "end": end, "text": "", "words": words}]

        worker.answer = talkative
        async with serving(worker):
            alice.begin(job_id="a")
            await alice.say(silence(40), 1)
            error = await alice.failed()
        assert (error["code"], error["job_id"]) == (Code.OUT_OF_MEMORY, "a")


# --- long streams ---------------------------------------------------------------------------------


async def test_silence_has_no_text_and_takes_no_room() -> None:
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        async with serving(worker):
            alice.begin(live_step_ms=2000)
            for _ in range(60):
                await speak(alice, silence(2), 2)
                assert made.front.spool.used < 64_000 * 30
            assert (await alice.end())["text"] == ""
        assert not alice.chunks
        assert worker.seconds < 20


async def test_twenty_minutes_take_the_room_of_half_a_minute() -> None:
    text = " ".join(VOCABULARY * 200)
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        most = 0
        async with serving(worker):
            alice.begin(live_step_ms=2000)
            audio = speech(text)
            for place in range(0, len(audio), 64_000):
                await speak(alice, audio[place : place + 64_000], 2)
                most = max(most, made.front.spool.used)
            transcript = await alice.end()
        assert transcript["text"] == alice.text == text
        assert worker.seconds < 20 and most < 64_000 * 20
        assert transcript["duration_ms"] == 1_200_000
        assert made.front.metrics.audio_seconds == pytest.approx(1200, abs=0.01)
        lengths = state(made)["histograms"]["audio_seconds"]
        assert lengths["sum"] == pytest.approx(1200, abs=0.01) and sum(lengths["counts"]) == 1


async def test_full_spool_delays_only_the_release_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To release the start of the audio, the rest is copied; without room the stream goes on."""
    copy = SpooledAudio.copy

    def only_steps(audio: SpooledAudio, begin: int, end: int | None = None) -> SpooledAudio:
        if end is None:
            raise Busy("full")
        return copy(audio, begin, end)

    monkeypatch.setattr(SpooledAudio, "copy", only_steps)
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        async with serving(worker):
            alice.begin()
            await speak(alice, speech(f"{TEXT} " * 6))
            transcript = await alice.end()
        assert transcript["text"].split() == TEXT.split() * 6
        words = [word for each in transcript["segments"] for word in each["words"]]
        assert [word["start"] for word in words] == [i * 0.5 for i in range(72)]
        assert worker.jobs[-1]["size"] == 36 * 32_000


async def test_two_streams_and_a_long_file_on_one_worker() -> None:
    async with front() as made:
        worker, alice, bob = Recognizer(made), Speaker(made, ALICE), Speaker(made, BOB)
        file = made.connect(ALICE)
        with memfd(speech(f"{TEXT} " * 20)) as fd:
            file.send("transcribe", {"job_id": "f", "audio": PCM}, fds=(fd.fileno(),))
        await file.expect("accepted")
        taken = await worker.take()
        assert taken is not None
        async with serving(worker):
            alice.begin()
            bob.begin()
            for place in range(0, len(speech(TEXT)), 16_000):
                for speaker in (alice, bob):
                    await speak(speaker, speech(TEXT)[place : place + 16_000])
            assert alice.text and bob.text
            assert [(await each.end())["text"] for each in (alice, bob)] == [TEXT, TEXT]
            worker.done(*taken)
            await file.expect("transcript")


async def test_limit_of_length_holds_for_live_streams() -> None:
    async with front(max_audio_seconds=10) as made:
        alice = Speaker(made, ALICE)
        alice.begin(job_id="a")
        await alice.say(silence(10.5))
        error = await alice.failed()
        assert (error["code"], error["job_id"]) == (Code.TOO_LARGE, "a")


# --- the end of speech ----------------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True])
async def test_stream_ends_after_silence_behind_speech(live: bool) -> None:
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        async with serving(worker):
            alice.begin(live=live, end_of_speech_ms=700)
            await speak(alice, silence(3) + speech("one two") + silence(0.5), 0.1)
            assert "transcript" not in alice.kinds
            await speak(alice, speech("three") + silence(0.6), 0.1)
            assert "transcript" not in alice.kinds and "accepted" not in alice.kinds
            await speak(alice, silence(1), 0.1)
            [transcript] = alice.transcripts
            assert transcript["text"] == "one two three"
            assert transcript["duration_ms"] <= 6000
            # What follows is skipped.
            await alice.say(speech("four"))
            alice.user.send("audio-stop")
            # The next stream has what was asked for it: nothing.
            alice.user.send("audio-start", START)
            await alice.say(speech("five"))
            alice.user.send("audio-stop")
            assert (await alice.hear("transcript"))["text"] == "five"
        assert ("transcript-start" in alice.kinds) == live


async def test_stream_without_speech_goes_on() -> None:
    async with front() as made:
        alice = Speaker(made, ALICE)
        async with serving(Recognizer(made)):
            alice.begin(live=False, end_of_speech_ms=100)
            await speak(alice, silence(40), 1)
            assert "accepted" not in alice.kinds


async def test_end_of_speech_is_searched_in_audio_that_comes_fast() -> None:
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        alice.begin(live=False, end_of_speech_ms=700)
        await alice.say(silence(75) + speech("one two") + silence(1), 1)
        async with serving(worker):
            assert (await alice.hear("transcript"))["text"] == "one two"
        assert all(job["size"] <= 30 * 32_000 for job in worker.jobs[:-1])


async def test_search_that_is_far_behind_hears_all_audio() -> None:
    """Also what the text does not need any more."""
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        audio, size = silence(1) + speech("one two") + silence(40), 64_000
        alice.begin(end_of_speech_ms=700)
        await alice.say(audio[:8000])
        held = await worker.take()
        assert held is not None and held[0]["options"]["task"] == "speech"
        async with serving(worker):
            for place in range(8000, len(audio), size):
                await alice.say(audio[place : place + size], 2)
                while any(not job.needs.speech for job in made.front.scheduler.running()):
                    await anyio.sleep(0)
            worker.done(*held)
            assert (await alice.hear("transcript"))["text"] == "one two"


async def test_speech_ends_within_a_chunk_and_a_frame() -> None:
    """The rest of the chunk hurts nobody, also if the job has to start once more."""
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        alice.begin(live=False, end_of_speech_ms=300)
        await alice.say(speech("one two") + silence(1))
        chunk = frames.encode("audio-chunk", START, 3200) + silence(0.1)
        alice.user.send_raw(chunk[:-1001])
        while made.front.spool.used % 2 == 0:
            await anyio.sleep(0)

        async def search() -> None:
            while (found := await worker.take()) and found[0]["options"].get("task") == "speech":
                worker.done(*found)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(search)
            answer = await alice.hear("accepted", "error")
            assert alice.kinds[-1] == "accepted", answer
        alice.user.send_raw(chunk[-1001:])
        await alice.ping()
        await worker.die()
        async with serving(Recognizer(made)):
            assert (await alice.hear("transcript", "error")).get("text") == "one two"
        await alice.ping()


async def test_speech_that_ends_within_a_chunk_for_which_there_is_no_room() -> None:
    """The text that was kept is released with the stream."""
    async with front() as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        alice.begin(job_id="a", end_of_speech_ms=300)
        async with serving(worker):
            await speak(alice, speech(TEXT))
        [stream] = made.front.unanswered._streams
        assert isinstance(stream, LiveStream) and made.front.transcripts.size
        await alice.say(silence(0.5))
        while (search := await worker.take()) and search[0]["options"].get("task") != "speech":
            worker.done(*search)
        assert search is not None
        spool = made.front.spool
        taken = spool.limit - spool.used
        spool.add("others", taken)
        alice.user.send_raw(frames.encode("audio-chunk", START, 3200) + silence(0.05))
        while stream._audio._problem is None:
            await anyio.sleep(0)
        spool.add("others", -taken)
        worker.done(*search)
        error = await alice.failed()
        assert (error["code"], error["job_id"]) == (Code.BUSY, "a")
        # The audio-stop gets no second answer.
        alice.user.send_raw(silence(0.05))
        alice.user.send("audio-stop")
        await alice.ping()
        assert alice.kinds.count("error") == 1


async def test_cancelled_stream_may_end_within_a_chunk() -> None:
    async with front() as made:
        alice, other = Speaker(made, ALICE), made.connect(ALICE)
        alice.begin(live=False, job_id="a", end_of_speech_ms=300)
        chunk = frames.encode("audio-chunk", START, 3200) + silence(0.1)
        alice.user.send_raw(chunk[:-1001])
        while not made.front.spool.used:
            await anyio.sleep(0)
        other.send("cancel", {"job_id": "a"})
        await other.expect("cancelled")
        await alice.failed()
        alice.user.send_raw(chunk[-1001:])
        await alice.ping()


# --- clients that know only Wyoming ---------------------------------------------------------------


@pytest.mark.parametrize("setting", [False, True])
async def test_plain_client_gets_live_text_if_the_settings_say_so(setting: bool) -> None:
    async with front(wyoming_live=setting) as made:
        alice = Speaker(made, ALICE)
        async with serving(Recognizer(made)):
            alice.user.send("transcribe", {"language": "en"})
            alice.user.send("audio-start", START)
            for _ in range(4):
                await alice.say(speech(TEXT))
            alice.user.send("audio-stop")
            transcript = await alice.hear("transcript")
            assert transcript["text"].split() == TEXT.split() * 4
            if setting:
                await alice.hear("transcript-stop")
                assert alice.text == transcript["text"]
                assert not any("pending" in each or "job_id" in each for each in alice.chunks)
        kinds = {"transcript-start", "transcript-chunk", "transcript", "transcript-stop"}
        assert set(alice.kinds) == (kinds if setting else {"transcript"})


async def test_plain_client_gets_its_transcript_if_live_text_is_impossible() -> None:
    async with front(wyoming_live=True) as made:
        alice = Speaker(made, ALICE)
        worker = Recognizer(made, word_timestamps=False)
        async with serving(worker):
            alice.user.send("audio-start", START)
            await alice.say(speech(f"{TEXT} " * 7))
            alice.user.send("audio-stop")
            transcript = await alice.hear("transcript")
        assert transcript["text"].split() == TEXT.split() * 7
        assert (len(worker.jobs), jobs(made)["live_steps"]) == (1, 0)


async def test_plain_client_gets_its_transcript_if_the_search_for_its_end_fails() -> None:
    async with front(wyoming_end_of_speech_ms=300) as made:
        worker, alice = Recognizer(made), Speaker(made, ALICE)
        alice.user.send("audio-start", START)
        await alice.say(speech("one two"))
        found = await worker.take()
        assert found is not None
        found[0]["answered"] = True
        failed = {"key": found[0]["key"], "code": "internal", "text": "no VAD"}
        worker.peer.send("failed", failed)
        async with serving(worker):
            await settle(alice)
            alice.user.send("audio-stop")
            assert (await alice.hear("transcript", "error")).get("text") == "one two"


async def test_setting_ends_the_stream_of_a_plain_client() -> None:
    async with front(wyoming_end_of_speech_ms=300) as made:
        alice = Speaker(made, ALICE)
        async with serving(Recognizer(made)):
            alice.user.send("audio-start", START)
            await speak(alice, speech("one two") + silence(2), 0.1)
            assert [each["text"] for each in alice.transcripts] == ["one two"]
        assert alice.kinds == ["transcript"]


async def test_plain_client_needs_no_search_for_speech() -> None:
    """Its worker is of an older asrd; the stream ends with its audio-stop."""
    async with front(wyoming_end_of_speech_ms=300) as made:
        worker, alice = Recognizer(made, speech=False), Speaker(made, ALICE)
        async with serving(worker):
            await ready(made)
            alice.user.send("audio-start", START)
            await speak(alice, speech("one two") + silence(2), 0.1)
            assert not alice.kinds
            alice.user.send("audio-stop")
            assert (await alice.hear("transcript", "error"))["text"] == "one two"
        assert [job["options"].get("task", "transcribe") for job in worker.jobs] == ["transcribe"]


async def test_button_that_was_pressed_too_briefly_is_no_error() -> None:
    async with front(wyoming_live=True) as made:
        alice = Speaker(made, ALICE)
        alice.user.send("audio-start", START)
        assert (await alice.end())["text"] == ""
        assert alice.kinds == ["transcript-start", "transcript", "transcript-stop"]


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "form", "text"),
    [
        ({"audio": PCM}, None, "transcribe: audio: must be absent with live"),
        ({}, {"channels": 3}, "audio-start: channels: at most 2 with live"),
        ({}, {"rate": 96_000}, "audio-start: rate: at most 48000 with live"),
        ({"live": False, "end_of_speech_ms": 500}, {"rate": 96_000}, "audio-start: rate: at most"),
        ({"task": "detect"}, {}, "audio-start: task: detect: is not possible with live"),
        ({"prefix": "a"}, {}, "audio-start: prefix: is not possible with live"),
        ({"batch_size": 8}, {}, "audio-start: batch_size: is not possible with live"),
        ({"live_step_ms": 1}, {}, "transcribe: live_step_ms: must be between"),
        ({"final": "both"}, {}, "transcribe: final: must be one of"),
    ],
)
async def test_what_cannot_be_live_is_refused_by_the_field(
    options: dict[str, Any], form: dict[str, Any] | None, text: str
) -> None:
    async with front() as made:
        alice = made.connect(ALICE)
        payload = SECOND if "audio" in options else b""
        alice.send("transcribe", {"live": True, "job_id": "a", **options}, payload)
        if form is not None:
            alice.send("audio-start", {**START, **form})
        error = await alice.expect("error")
        assert (error["code"], error["job_id"]) == (Code.BAD_REQUEST, "a")
        assert error["text"].startswith(text)
        # The stream gets no second answer.
        if form is not None:
            alice.send("audio-chunk", {**START, **form}, SECOND)
            alice.send("audio-stop")
        await alice.ping()


async def test_worker_of_an_older_asrd_gets_no_search_for_speech() -> None:
    async with front() as made:
        alice = Speaker(made, ALICE)
        hello = {name: value for name, value in HELLO.items() if name != "speech"}
        worker = made.play_worker()
        worker.send("hello", hello)
        await ready(made)
        alice.begin(job_id="a", live=False, end_of_speech_ms=300)
        await alice.say(speech(TEXT))
        error = await alice.failed()
        assert (error["code"], error["job_id"]) == (Code.BAD_REQUEST, "a")
        assert "no worker can find speech" in error["text"]
        assert jobs(made)["live_steps"] == 0


async def test_model_without_word_times_has_no_live_text() -> None:
    async with front() as made:
        alice = Speaker(made, ALICE)
        made.play_worker().send("hello", {**HELLO, "word_timestamps": False})
        await ready(made)
        alice.begin(job_id="a")
        await alice.say(speech(TEXT))
        error = await alice.failed()
        assert (error["code"], error["job_id"]) == (Code.BAD_REQUEST, "a")
        assert "alignment_heads" in error["text"]
