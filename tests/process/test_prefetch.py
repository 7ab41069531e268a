"""Reading ahead and spare workers, from the client to the engine: the front against a worker that
the test plays, and `asrd run` with real ones."""

import signal
from pathlib import Path
from typing import Any

import pytest

from asrd.wire.worker_events import Hello
from tests.process.test_run import LONG, SHORT, TEXTS, ask, transcript
from tests.support.daemons import Daemon, Front, descriptors
from tests.support.raw import HELLO, Peer, done, memfd, wait_for

CONFIG = "[front]\nqueue_max = 8\n[worker]\ncpu_threads = 1\nbeam_size = 1\n"


def ask_front(client: Peer, job_id: str) -> None:
    with memfd(b"\0" * 32000) as fd:
        audio = {"encoding": "pcm_s16le"}
        client.send("transcribe", {"job_id": job_id, "audio": audio}, fds=(fd.fileno(),))
    client.expect("accepted")


def ready(front: Front, name: str = "0", **changes: Any) -> Peer:
    worker = front.accept(name)
    worker.send(Hello.TYPE, {**HELLO, "prefetch": True, **changes})
    front.wait_for_state("ready", "busy", name=name)
    return worker


def take(worker: Peer) -> dict[str, Any]:
    job, fd = worker.take_job()
    fd.close()
    return job


@pytest.fixture
def front(tmp_path: Path) -> Any:
    with Front(tmp_path, "0", "1", config="queue_max = 8") as running:
        yield running


def test_the_next_job_comes_to_be_held_and_then_to_be_run(front: Front) -> None:
    with ready(front) as worker, front.connect() as client:
        ask_front(client, "a")
        ask_front(client, "b")
        first, second = take(worker), take(worker)
        assert (first["hold"], second["hold"]) == (False, True)
        assert front.status()["queue"]["depth"] == 1
        worker.send("done", done(first["key"], "one"))
        assert client.answer("a").data["text"] == "one"
        assert worker.expect("run") == {"key": second["key"], "alone": False}
        worker.send("done", done(second["key"], "two"))
        assert client.answer("b").data["text"] == "two"
        assert front.status()["jobs"]["prefetched"] == 1


def test_a_worker_that_does_not_say_so_is_sent_nothing_ahead(front: Front) -> None:
    with ready(front, prefetch=False) as worker, front.connect() as client:
        ask_front(client, "a")
        ask_front(client, "b")
        first = take(worker)
        worker.send("done", done(first["key"]))
        assert take(worker)["hold"] is False


def test_a_held_job_that_is_cancelled_ends_at_once_and_its_worker_is_told(front: Front) -> None:
    with ready(front) as worker, front.connect() as client:
        ask_front(client, "a")
        ask_front(client, "b")
        _, held = take(worker), take(worker)
        client.send("cancel", {"job_id": "b"})
        assert client.answer("b").data["code"] == "cancelled"
        assert worker.expect("cancel") == {"key": held["key"]}


def test_an_answer_for_a_job_that_is_only_held_is_a_breach(front: Front) -> None:
    with front.connect() as client:
        with ready(front) as worker:
            ask_front(client, "a")
            ask_front(client, "b")
            _, held = take(worker), take(worker)
            worker.send("done", done(held["key"], "stolen"))
            assert worker.at_end()
        with ready(front) as worker:
            # A retry, with nothing beside it.
            last = take(worker)
            assert (last["job_id"], last["alone"]) == ("a", True)
            worker.send("done", done(last["key"], "right"))
            assert client.answer("a").data["text"] == "right"
            following = take(worker)
            assert (following["job_id"], following["hold"]) == ("b", False)


def test_a_free_worker_takes_what_another_one_holds(front: Front) -> None:
    with ready(front) as one, front.connect() as client:
        ask_front(client, "a")
        ask_front(client, "b")
        _, held = take(one), take(one)
        with ready(front, "1") as other:
            assert take(other)["job_id"] == "b"
            assert one.expect("cancel") == {"key": held["key"]}


def test_a_spare_waits_until_it_is_needed(front: Front) -> None:
    with ready(front, "1", spare=True) as spare, front.connect() as client:
        with ready(front) as worker:
            ask_front(client, "a")
            ask_front(client, "b")
            assert take(worker)["job_id"] == "a"
        first = take(spare)
        assert (first["job_id"], first["alone"]) == ("a", True)
        assert front.worker("1")["spare"] is True


def test_real_workers_read_ahead_and_give_each_job_its_own_text(tmp_path: Path) -> None:
    names = [name for name in TEXTS if name.startswith(("en-", "de-", "es-"))][:6]
    with Daemon(tmp_path, config=CONFIG) as daemon, daemon.connect() as client:
        daemon.wait_until_ready()
        ask(client, "warm")
        alone = {"warm": transcript(client, "warm")["text"]}
        for name in names:
            ask(client, name, name, language=None)
            alone[name] = transcript(client, name)["text"]
        before = descriptors(daemon.pid_of())
        for number, name in enumerate(names):
            ask(client, f"{number} {name}".replace(" ", "-"), name, language=None)
        for number, name in enumerate(names):
            assert transcript(client, f"{number}-{name}")["text"] == alone[name]
        assert daemon.status()["jobs"]["prefetched"] >= len(names) - 1
        wait_for("its descriptors to be closed", lambda: descriptors(daemon.pid_of()) == before)


def test_a_crash_costs_the_job_that_ran_and_not_the_one_that_was_read(tmp_path: Path) -> None:
    with (
        Daemon(tmp_path, config=CONFIG) as daemon,
        daemon.connect() as client,
        daemon.connect() as other,
    ):
        daemon.wait_until_ready()
        ask(client, "long", LONG, stream=True)
        client.expect("accepted")
        ask(other, "short")
        other.expect("accepted")
        client.expect("progress")
        daemon.kill(number=signal.SIGSEGV)
        assert transcript(client, "long")["attempts"] == 2
        assert transcript(other, "short")["attempts"] == 1


def test_bad_audio_that_was_read_ahead_is_told_and_harms_nobody(tmp_path: Path) -> None:
    with Daemon(tmp_path, config=CONFIG) as daemon, daemon.connect() as client:
        daemon.wait_until_ready()
        ask(client, "long", LONG)
        with memfd(b"no audio at all") as fd:
            audio = {"encoding": "file"}
            client.send("transcribe", {"job_id": "bad", "audio": audio}, fds=(fd.fileno(),))
        ask(client, "short")
        assert client.answer("bad").data["code"] == "bad-audio"
        assert transcript(client, "short")["text"] == TEXTS[SHORT]
        assert daemon.status()["jobs"]["prefetched"] == 2
        assert daemon.workers()["0"]["restarts"] == 0


def test_with_a_spare_a_crash_is_not_waited_for(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--spares", "1", config=CONFIG) as daemon, daemon.connect() as client:
        daemon.wait_until_ready("0", "1")
        assert [daemon.workers()[name]["spare"] for name in "01"] == [False, True]
        ask(client, "first", LONG, stream=True)
        client.expect("accepted")
        client.expect("progress")
        daemon.kill("0", signal.SIGSEGV)
        again = transcript(client, "first")
        assert (again["attempts"], again["worker"]) == (2, "1")
        daemon.wait_until_ready("0", "1")
        ask(client, "second")
        assert transcript(client, "second")["worker"] == "0"
