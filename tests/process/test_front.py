"""The front against workers that the test plays by hand: each event, code and misbehaviour."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asrd.errors import Code
from asrd.wire import fdsocket
from asrd.wire.client_events import TO_CLIENT
from asrd.wire.fields import parse_event
from tests.support.daemons import Front, descriptors, resident_kib
from tests.support.raw import HELLO, PCM, SECOND, Peer, done, memfd, wait_for, window
from tests.support.users import START

# The example of the W3C's Trace Context.
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with Front(tmp_path, "0", config="queue_max = 2\nmax_wait_seconds = 20") as daemon:
        yield daemon


def test_one_job_from_hello_to_transcript(front: Front) -> None:
    with front.ready() as worker, front.connect() as client:
        client.ask(stream=True, trace_id=TRACEPARENT, language="en", beam_size=3)
        assert client.expect("accepted") == {"job_id": "a", "queue_depth": 0}
        job, fd = worker.take_job()
        with fd:
            assert os.pread(fd.fileno(), 1 << 20, 0) == SECOND
        assert job["audio"] == PCM
        assert job["trace_id"] == TRACEPARENT
        assert job["options"] == {"language": "en", "task": "transcribe", "beam_size": 3}
        finished = window(job["key"], " hello")
        (segment,) = finished["segments"]
        worker.send("window", finished)
        worker.send(
            "progress", {"key": job["key"], "audio_seconds_done": 1.0, "audio_seconds": 1.0}
        )
        worker.send("done", done(job["key"], text=" there"))
        expected = {"job_id": "a", "index": 0, "attempt": 1, "segment": segment}
        assert client.expect("segment") == expected
        assert client.expect("progress")["audio_seconds_done"] == 1.0
        transcript = client.expect("transcript")
        assert transcript["text"] == "hello there"
        assert transcript["trace_id"] == TRACEPARENT
        wait_for("the log", lambda: "done: 1.0 s of audio" in front.log)
        assert f"trace_id={TRACEPARENT}" in front.log
        assert transcript["segments"] == [segment]
        assert (transcript["worker"], transcript["attempts"]) == ("0", 1)


def test_full_queue_is_busy_with_retry_after(front: Front) -> None:
    with front.ready() as worker, front.connect() as client:
        for name in ("a", "b", "c"):
            client.ask(name)
            client.expect("accepted")
        client.ask("d")
        error = client.expect("error")
        assert (error["code"], error["job_id"], error["retryable"]) == (Code.BUSY, "d", True)
        assert error["retry_after_ms"] > 0
        assert front.status()["queue"]["depth"] == 2
        # Back-pressure is no fault, before a job has waited for long.
        assert front.status()["state"] == "ok"
        worker.start_job()


def test_job_that_kills_two_workers_is_worker_crashed(
    front: Front,
) -> None:
    with front.connect() as client:
        client.ask("poison")
        client.ask("innocent")
        for _ in range(2):
            with front.ready() as worker:
                job = worker.start_job()
                assert job["job_id"] == "poison"
        error = client.answer("poison").data
        assert (error["code"], error["retryable"]) == (Code.WORKER_CRASHED, False)
        with front.ready() as worker:
            job = worker.serve_job()
            assert client.answer("innocent").type == "transcript"


MISBEHAVIOURS: dict[str, Callable[[Peer, int], object]] = {
    "garbage": lambda worker, key: worker.send_raw(b"\x00\xff garbage\n"),
    "a huge header": lambda worker, key: worker.send_raw(b"x" * 100_000),
    "another's key": lambda worker, key: worker.send("done", done(key + 1000)),
    "a window of another's key": lambda worker, key: worker.send("window", window(key + 1000, "")),
    "no text": lambda worker, key: worker.send("done", {"key": key}),
    "no language": lambda worker, key: worker.send("done", {**done(key), "language": None}),
    "a payload": lambda worker, key: worker.send_raw(
        b'{"type": "done", "payload_length": 9999999}\n'
    ),
    "a descriptor": lambda worker, key: fdsocket.send(worker.sock, [b'{"type": "x"}\n'], [0]),
    "a second hello": lambda worker, key: worker.send("hello", {**HELLO, "model": "other"}),
    "loading after hello": lambda worker, key: worker.send("loading", {"pid": 7, "model": "m"}),
    "hello in another version": lambda worker, key: worker.send("hello", {**HELLO, "version": 99}),
}


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_worker_that_breaks_the_protocol_counts_as_crashed(front: Front, name: str) -> None:
    with front.connect() as client:
        with front.ready() as worker:
            client.ask()
            job = worker.start_job()
            MISBEHAVIOURS[name](worker, job["key"])
            assert worker.at_end()
        with front.ready() as worker:
            job = worker.serve_job(text="the right one")
            assert client.answer("a").data["text"] == "the right one"


def test_late_answer_never_reaches_another_job(front: Front) -> None:
    with front.ready() as worker, front.connect() as client:
        client.ask("a")
        first, fd = worker.take_job()
        fd.close()
        client.send("cancel", {"job_id": "a"})
        assert client.answer("a").data["code"] == Code.CANCELLED
        assert worker.expect("cancel") == {"key": first["key"]}
        client.ask("b")
        client.expect("accepted")
        # The worker had not heard of it yet, and answers the job that nobody wants any more.
        worker.send("done", done(first["key"], text="a's text"))
        second, fd = worker.take_job()
        fd.close()
        worker.send("done", done(second["key"], text="b's text"))
        assert client.answer("b").data["text"] == "b's text"


def test_request_finds_a_worker_installed_since_the_start(tmp_path: Path) -> None:
    with Front(tmp_path) as front, front.connect() as client:
        front.status()
        front.listeners["0"] = front.listen("0")
        client.ask()
        client.expect("accepted")


def test_timeout_ends_jobs_that_wait_or_run(front: Front) -> None:
    with front.ready() as worker, front.connect() as client:
        client.ask("runs", timeout_ms=600)
        worker.start_job()
        client.ask("waits", timeout_ms=200)
        error = client.answer("waits").data
        assert (error["code"], error["phase"]) == (Code.DEADLINE_EXCEEDED, "queue")
        error = client.answer("runs").data
        assert (error["code"], error["phase"]) == (Code.DEADLINE_EXCEEDED, "run")
        assert "key" in worker.expect("cancel")


def test_error_repeats_no_malformed_id(front: Front) -> None:
    with front.connect() as client:
        client.ask("a", payload=b"")
        assert "audio: needs either a payload or" in client.expect("error")["text"]
        client.ask("a b", trace_id="t1")
        error = client.expect("error")
        assert parse_event(TO_CLIENT, "error", error).trace_id == "t1"
        assert "job_id" not in error
        client.ask("a", trace_id=5)
        assert client.expect("error")["job_id"] == "a"


def test_job_id_in_flight_is_refused(front: Front) -> None:
    with front.ready() as worker, front.connect() as client:
        client.ask()
        client.expect("accepted")
        client.ask()
        assert client.expect("error")["code"] == Code.BAD_REQUEST
        worker.serve_job()
        client.expect("transcript")


def test_limits_of_size_and_length(tmp_path: Path) -> None:
    config = "max_payload_bytes = 40000\nmax_file_bytes = 50000\nmax_audio_seconds = 1.0"
    with Front(tmp_path, "0", config=config) as front, front.ready() as worker:
        with front.connect() as client:
            client.ask("exact", payload=SECOND)
            client.expect("accepted")
            worker.start_job()
            client.ask("long", payload=SECOND + b"\0\0")
            assert client.answer("long").data["code"] == Code.TOO_LARGE
            with memfd(bytes(50_001)) as fd:
                audio = {"encoding": "file"}
                client.send("transcribe", {"job_id": "f", "audio": audio}, fds=(fd.fileno(),))
                assert client.answer("f").data["code"] == Code.TOO_LARGE
            client.send("transcribe", {"job_id": "w"})
            client.send("audio-start", START)
            for _ in range(3):
                client.send("audio-chunk", START, bytes(16_000))
            client.send("audio-stop")
            assert client.expect("error")["code"] == Code.TOO_LARGE
            client.send_raw(b'{"type": "transcribe", "payload_length": 40001}\n')
            assert client.expect("error")["code"] == Code.BAD_REQUEST
            assert client.at_end()


def test_a_wyoming_stream_gets_wyoming_events_only(front: Front) -> None:
    with front.ready() as worker, front.connect() as client:
        start = {"rate": 48_000, "width": 2, "channels": 2}
        client.send("transcribe", {"language": "en", "transcript_names": ["Ada"]})
        client.send("audio-start", start)
        for part in (b"ab" * 2000, b"cd" * 2000):
            client.send("audio-chunk", start, part)
        client.send("audio-stop")
        job, fd = worker.take_job()
        with fd:
            assert os.pread(fd.fileno(), 1 << 20, 0) == b"ab" * 2000 + b"cd" * 2000
        assert job["audio"] == {"encoding": "pcm_s16le", "sample_rate": 48_000, "channels": 2}
        assert job["options"]["hotwords"] == "Ada"
        worker.send("done", done(job["key"]))
        assert client.expect("transcript")["text"] == "hello"


def test_unknown_events_are_ignored_and_counted(front: Front) -> None:
    with front.connect() as client:
        client.send("play-music", {"loud": True}, b"payload")
        client.send("ping")
        client.expect("pong")
        assert front.status()["ignored_events"] == 1


def offered(client: Peer) -> list[tuple[str, list[str]]]:
    client.send("describe")
    models = client.expect("info")["asr"][0]["models"]
    return [(model["name"], model["languages"]) for model in models]


def test_describe_waits_for_the_models_of_loading_workers(front: Front) -> None:
    """Home Assistant asks once, at its start, and had no languages until somebody reloaded it."""
    with front.connect() as client, front.connect() as other:
        client.send("describe")
        with front.accept() as worker:
            worker.send("loading", {"pid": 1, "model": "fake"})
            # Nobody else waits meanwhile.
            other.send("ping")
            other.expect("pong")
            loading = {"pid": 1, "model": "fake", "languages": ["de", "en"]}
            worker.send("loading", loading)
            (model,) = client.expect("info")["asr"][0]["models"]
            assert (model["name"], model["languages"]) == ("fake", ["de", "en"])
            assert model["description"] == "Whisper model fake"
        # It died as it loaded, and the next one has not said anything yet.
        assert offered(client) == [("fake", ["de", "en"])]
        with front.ready() as worker:
            assert offered(client) == [("fake", ["en"])]
            worker.send("bye", {"reason": "idle"})
        front.wait_for_state("asleep")
        assert offered(client) == [("fake", ["en"])]


def test_wait_for_describe_does_not_end_a_recording(tmp_path: Path) -> None:
    with (
        Front(tmp_path, "0", config="frame_timeout_seconds = 0.6") as front,
        front.accept() as worker,
        front.connect() as client,
    ):
        client.send("audio-start", START)
        client.send("describe")
        time.sleep(0.9)
        client.send("audio-chunk", START, payload=SECOND)
        worker.send("loading", {"pid": 1, "model": "fake", "languages": ["en"]})
        assert client.receive_kind() == "info"
        client.send("ping")
        assert client.receive_kind() == "pong"


def test_job_goes_to_a_worker_with_its_language_and_task(tmp_path: Path) -> None:
    with Front(tmp_path, "0", "1", config="queue_max = 2") as front, front.connect() as client:
        english = {"model": "tiny.en", "translate": False}
        many = {"model": "/srv/base", "languages": ["de", "en"]}
        with front.ready("0", **english) as one, front.ready("1", **many) as other:
            given: list[tuple[Peer, dict[str, Any]]] = [
                (one, {"name": "TINY.EN"}),
                (other, {"name": "base", "language": "German"}),
                (other, {"task": "translate"}),
            ]
            for worker, asked in given:
                client.ask(**asked)
                client.expect("accepted")
                worker.serve_job()
                client.expect("transcript")
            client.ask("b", language="fr")
            error = client.expect("error")
            assert (error["code"], error["job_id"]) == (Code.BAD_REQUEST, "b")
            assert error["text"].startswith("language: ")


def test_worker_is_added_and_removed_live(front: Front) -> None:
    with front.ready():
        front.listeners["1"] = front.listen("1")
        with front.ready("1") as second, front.connect() as client:
            client.ask("a")
            client.ask("b")
            job = second.start_job()
            front.remove("1")
            wait_for("worker 1 to be retired", lambda: front.worker("1")["retired"])
            client.ask("c")
            second.send("done", done(job["key"]))
            assert client.answer(job["job_id"]).type == "transcript"
            wait_for("worker 1 to be gone", lambda: len(front.status()["workers"]) == 1)
            assert second.at_end()


def test_drain_finishes_accepted_jobs_and_refuses_new_ones(front: Front) -> None:
    with front.ready() as worker, front.connect() as client:
        client.ask("runs")
        client.ask("waits")
        job = worker.start_job()
        client.expect("accepted")
        client.expect("accepted")
        front.process.send_signal(signal.SIGTERM)

        def refused() -> bool:
            # Who was not accepted yet when the listener closed is only cut off.
            with front.connect() as late, contextlib.suppress(BrokenPipeError):
                late.send("ping")
                late.receive()
            return False

        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            wait_for("new connections to be refused", refused)
        client.ask("late")
        assert client.expect("error")["code"] == Code.SHUTTING_DOWN
        worker.send("done", done(job["key"]))
        job = worker.serve_job()
        assert client.answer("runs").type == "transcript"
        assert client.answer("waits").type == "transcript"
        assert client.at_end()
        assert front.process.wait(10) == 0


def test_drain_ends_after_drain_seconds_with_an_error(tmp_path: Path) -> None:
    with (
        Front(tmp_path, "0", config="drain_seconds = 0.1") as front,
        front.ready() as worker,
        front.connect() as client,
    ):
        client.ask("a")
        worker.start_job()
        client.expect("accepted")
        front.process.send_signal(signal.SIGTERM)
        assert client.answer("a").data["code"] == Code.SHUTTING_DOWN
        assert front.process.wait(10) == 0


def test_too_many_jobs_of_a_connection_are_busy(tmp_path: Path) -> None:
    config = "jobs_max_per_connection = 2\nqueue_max = 9"
    with Front(tmp_path, "0", config=config) as front, front.connect() as client:
        for name in ("a", "b"):
            client.ask(name)
            client.expect("accepted")
        client.ask("c")
        assert client.expect("error")["code"] == Code.BUSY


def test_client_that_stalls_inside_an_event_is_dropped(tmp_path: Path) -> None:
    with Front(tmp_path, config="frame_timeout_seconds = 0.3") as front:
        with front.connect() as client, front.connect() as idle:
            client.send_raw(b'{"type": "ping", "data_length": 100}\n{"te')
            assert "0.3 s" in client.expect("error")["text"]
            assert client.at_end()
            idle.send("ping")
            idle.expect("pong")


def test_client_that_never_reads_is_dropped(tmp_path: Path) -> None:
    with Front(tmp_path, config="output_max_bytes = 65536") as front, front.connect() as deaf:
        deaf.sock.settimeout(5)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(100_000):
                deaf.send("status")
        assert front.status()["connections"] >= 1
        wait_for("the log entry", lambda: "does not read" in front.log)


def test_other_file_at_the_socket_path_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    command = [sys.executable, "-m", "asrd.main", "serve", "--socket", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 78
    assert "no socket" in result.stderr
    assert path.read_text() == "precious"


def test_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "asrd.sock"))
    with Front(tmp_path) as front:
        front.status()


def test_front_is_light_and_loads_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Coverage takes 7 MiB of each process that it measures.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    with Front(tmp_path) as front:
        maps = Path(f"/proc/{front.process.pid}/maps").read_text()
        for module in ("numpy", "ctranslate2", "onnxruntime", "av/", "coverage"):
            assert module not in maps
        assert resident_kib(front.process.pid) < 32 * 1024


# The last bytes of a client.
ENDINGS = [
    b"",
    b"broken\n",
    b'{"type": "trans',
    b'{"type": "transcribe", "payload_length": 1000}\nabc',
]


def test_no_descriptor_leaks_after_any_kind_of_end(front: Front) -> None:
    with front.ready() as worker:
        front.status()
        before = descriptors(front.process.pid)
        for round_ in range(20):
            with front.connect() as client:
                client.ask("done")
                worker.serve_job()
                client.answer("done")
                client.send("transcribe", {"audio": PCM}, b"123")
                client.expect("error")
                with memfd(b"x") as fd:
                    client.send("ping", fds=(fd.fileno(),))
                    client.expect("pong")
                client.send("audio-start", START)
                client.send_raw(ENDINGS[round_ % len(ENDINGS)])
        wait_for(
            "descriptors to be closed",
            lambda: descriptors(front.process.pid) <= before,
        )
