"""Checkpoints, blame and turns, with a real front: workers played by hand, then a real one."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from asrd.errors import Code
from asrd.wire.turn_word import TurnWord
from tests.support.daemons import Daemon, Front
from tests.support.raw import Peer, done, until, wait_for, window
from tests.support.speech import long_recording

# Four minutes of PCM: a long job.
MINUTES = bytes(4 * 60 * 32_000)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with Front(tmp_path, "0") as daemon:
        yield daemon


def test_retry_resumes_and_repeats_no_segment(front: Front) -> None:
    with front.connect() as client:
        client.ask(payload=MINUTES, stream=True)
        client.expect("accepted")
        with front.ready() as worker:
            job = worker.start_job()
            assert "resume" not in job
            worker.send("window", window(job["key"], " one", tokens=[1, 2], language="en"))
            first = client.expect("segment")
        with front.ready() as worker:
            job = worker.start_job()
            resume = job["resume"]
            worker.send("window", window(job["key"], " two", 2))
            second = client.expect("segment")
            worker.send("done", done(job["key"], " three"))
            transcript = client.transcript()
    assert (resume["frame"], resume["tokens"], resume["language"]) == (3000, [1, 2], "en")
    assert (first["index"], first["attempt"], second["index"], second["attempt"]) == (0, 1, 1, 2)
    assert (transcript["text"], transcript["attempts"]) == ("one two three", 2)
    assert [segment["text"] for segment in transcript["segments"]] == [" one", " two"]


def test_death_after_a_checkpoint_counts_anew(front: Front) -> None:
    """With two attempts, three deaths at three places cost the job nothing."""
    with front.connect() as client:
        client.ask(payload=MINUTES)
        for place in range(3):
            with front.ready() as worker:
                job = worker.start_job()
                worker.send("window", window(job["key"], f" {place}", place + 1))
        with front.ready() as worker:
            job = worker.serve_job(" end")
        assert job["suspect"] is True
        assert client.transcript()["text"] == "0 1 2 end"


def test_two_deaths_at_one_place_blame_the_job_that_had_the_turn(front: Front) -> None:
    with front.connect() as client:
        client.ask("innocent", payload=MINUTES)
        client.ask("poison")
        for attempt in range(2):
            word = TurnWord.create()
            with front.ready(fds=(word.fd.fileno(),), slots=2) as worker:
                jobs = [worker.start_job() for _ in range(2)]
                keys = {job["job_id"]: job["key"] for job in jobs}
                suspects = {job["job_id"]: job.get("suspect", False) for job in jobs}
                assert suspects == {"innocent": False, "poison": attempt == 1}
                word.write(keys["poison"])
            word.close()
        error = client.answer("poison").data
        assert (error["code"], error["job_id"]) == (Code.WORKER_CRASHED, "poison")
        with front.ready() as worker:
            worker.serve_job("safe")
            assert client.transcript("innocent")["text"] == "safe"


def test_stopping_worker_hands_a_long_job_back(front: Front) -> None:
    with front.connect() as client:
        client.ask(payload=MINUTES)
        for number, reason in enumerate(("stopping", "cancelled", "stopping"), 1):
            with front.ready() as worker:
                job = worker.start_job()
                worker.send("window", window(job["key"], f" {reason}", number))
                worker.send("bye", {"reason": reason})
        with front.ready() as worker:
            worker.serve_job(" end")
            transcript = client.transcript()
            status = front.status()
    assert transcript["text"] == "stopping cancelled stopping end"
    assert (status["state"], status["jobs"]["retried"]) == ("ok", 0)
    assert (status["workers"][0]["restarts"], status["workers"][0]["last_death"]) == (0, None)


def test_job_outlives_its_model(front: Front) -> None:
    """It waits for the model that it was begun with, unless an admin has replaced that. Another
    model goes on without what only the first one understands."""
    with front.connect() as client:
        client.ask(payload=MINUTES)
        with front.ready(model="old") as worker:
            job = worker.start_job()
            worker.send("window", window(job["key"], " one", tokens=[1, 2], language="en"))
            worker.send("bye", {"reason": "stopping"})
        with front.ready(model="new") as worker:
            job = worker.serve_job(" two")
            transcript = client.transcript()
    resume = job["resume"]
    assert (resume["frame"], resume["segments"]) == (3000, 1)
    assert (resume["tokens"], resume.get("language")) == ([], None)
    assert (transcript["text"], transcript["model"]) == ("one two", "new")


def test_a_worker_that_made_no_progress_is_told_as_such(front: Front) -> None:
    with front.connect() as client:
        client.ask()
        for _ in range(2):
            with front.ready() as worker:
                worker.start_job()
                worker.send("alive", {"stalled_seconds": 125.0})
                wait_for("the report", lambda: "no progress for 125 s" in str(front.status()))
        error = client.answer("a").data
    assert "it made no progress for 125 s" in error["text"]
    assert "it made no progress for 125 s" in front.log
    assert "it made no progress for 125 s" in front.worker("0")["last_death"]


def loading(worker: Peer) -> None:
    worker.send("loading", {"pid": os.getpid(), "model": "fake"})


def test_load_longer_than_the_wait_fails_nobody(tmp_path: Path) -> None:
    with Front(tmp_path, "0", config="max_wait_seconds = 0.2") as front, front.connect() as client:
        worker = front.accept()
        loading(worker)
        client.ask("patient")
        client.ask("hurried", timeout_ms=500)
        assert client.answer("hurried").data["code"] == Code.DEADLINE_EXCEEDED
        worker.close()
        with front.ready() as worker:
            worker.serve_job()
            assert client.transcript("patient")["text"] == "hello"


def test_wait_for_a_load_has_an_end(tmp_path: Path) -> None:
    config = "max_wait_seconds = 0.1\nmax_load_seconds = 0.4"
    with Front(tmp_path, "0", config=config) as front, front.connect() as client:
        loading(worker := front.accept())
        client.ask()
        error = client.answer("a").data
        assert (error["code"], error["phase"]) == (Code.DEADLINE_EXCEEDED, "queue")
        worker.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV])
def test_real_worker_ends_in_the_middle(tmp_path: Path, number: signal.Signals) -> None:
    """The transcript equals the undisturbed one, and no segment comes twice."""
    config = "[worker]\ncpu_threads = 1\nbeam_size = 1\ntemperature = [0.0]\n"
    audio, _ = long_recording(150, seed=1)
    minutes = (audio * 32_767).astype("<i2").tobytes()
    with Daemon(tmp_path, config=config) as daemon, daemon.connect() as client:
        daemon.wait_until_ready()
        client.ask("undisturbed", minutes)
        expected = client.transcript("undisturbed")
        client.ask("long", minutes, stream=True)
        events = until(client, "segment")
        daemon.kill(number=number)
        events += until(client, "transcript")
    transcript = events.pop().data
    segments = [event.data for event in events if event.type == "segment"]
    assert (transcript["text"], transcript["attempts"]) == (expected["text"], 2)
    assert transcript["segments"] == expected["segments"]
    assert [each["segment"] for each in segments] == expected["segments"]
    assert [each["index"] for each in segments] == list(range(len(segments)))
