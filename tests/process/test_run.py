"""`asrd run` with real workers and the real engine: what a crash costs, and what it must not."""

import os
import shutil
import signal
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import wav_to_chunks
from wyoming.client import AsyncClient
from wyoming.info import Describe, Info

from asrd import cores
from asrd.demo import SAMPLES
from asrd.errors import Code
from tests.support.daemons import Daemon, alive, crashing_model
from tests.support.raw import SHORT, TEXTS, wait_for


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    config = "[front]\nqueue_max = 8\n[worker]\ncpu_threads = 1\nbeam_size = 1\n"
    arguments = ("--watchdog", "2", "--wyoming", "127.0.0.1:0")
    with Daemon(tmp_path_factory.mktemp("t"), *arguments, config=config) as running:
        yield running


@pytest.fixture
def daemon(shared: Daemon) -> Daemon:
    """One for all tests that use the same settings; some kill its processes."""
    shared.wait_until_ready()
    return shared


def test_the_bundled_model_is_used_with_a_notice(daemon: Daemon) -> None:
    (before,) = daemon.status()["workers"]
    with daemon.connect() as client:
        client.ask_file("a")
        assert client.transcript("a")["text"] == TEXTS[SHORT]
    (worker,) = daemon.status()["workers"]
    assert (worker["model"], worker["device"]) == ("demo", "cpu")
    assert worker["jobs_done"] == before["jobs_done"] + 1
    assert "using the bundled demo model" in daemon.log


def test_every_option_reaches_the_engine(daemon: Daemon) -> None:
    options: dict[str, Any] = {
        "word_timestamps": True,
        "vad_filter": True,
        "beam_size": 2,
        "temperature": [0.0, 0.2],
        "initial_prompt": "four green",
        "hotwords": "window",
        "condition_on_previous_text": False,
        "task": "transcribe",
        "stream": True,
    }
    with daemon.connect() as client:
        client.ask_file("a", **options)
        client.expect("accepted")
        kinds = []
        while (event := client.receive()) is not None and event.type != "transcript":
            kinds.append(event.type)
        assert event is not None
        assert set(kinds) == {"progress", "segment"}
        done = event.data
        words = [word["word"].strip() for s in done["segments"] for word in s["words"]]
        assert " ".join(words) == done["text"]


def test_language_is_detected_and_translation_works(daemon: Daemon) -> None:
    with daemon.connect() as client:
        client.ask_file("de", "de-1.wav", language=None)
        assert client.transcript("de")["language"] == "de"
        client.ask_file("es", "es-1.wav", language="es", task="translate")
        assert client.transcript("es")["text"] == "five five green"


def test_worker_death_during_a_job_costs_one_retry(daemon: Daemon) -> None:
    before = daemon.status()["jobs"]["retried"]
    with daemon.connect() as client:
        client.start_long("long")
        client.ask_file("queued")
        daemon.kill()
        assert client.transcript("long")["attempts"] == 2
        assert client.transcript("queued")["text"] == TEXTS[SHORT]
    assert daemon.status()["jobs"]["retried"] > before
    death = daemon.workers()["0"]["last_death"]
    assert "killed by SIGKILL" in death
    assert "job long" in death


def test_worker_death_while_loading_costs_nothing(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon, daemon.connect() as client:
        client.ask_file("a")
        wait_for("a worker that loads", lambda: daemon.workers()["0"]["pid"])
        daemon.kill()
        assert client.transcript("a")["text"] == TEXTS[SHORT]


def test_watchdog_replaces_a_stopped_worker(daemon: Daemon) -> None:
    before = daemon.pid_of()
    with daemon.connect() as client:
        client.start_long()
        daemon.kill(number=signal.SIGSTOP)
        assert client.transcript("a")["attempts"] == 2
    assert daemon.pid_of() != before
    assert not alive(before)


def test_watchdog_replaces_a_stopped_front_but_no_worker(daemon: Daemon) -> None:
    front, worker = daemon.front_pid(), daemon.pid_of()
    os.kill(front, signal.SIGSTOP)
    wait_for("the front's death", lambda: not alive(front))
    daemon.wait_until_ready()
    assert daemon.front_pid() != front
    assert daemon.pid_of() == worker
    with daemon.connect() as client:
        client.ask_file("a")
        assert client.transcript("a")["text"] == TEXTS[SHORT]


def test_killed_front_stops_the_running_job(daemon: Daemon) -> None:
    with daemon.connect() as client:
        client.start_long()
        worker = daemon.pid_of()
        os.kill(daemon.front_pid(), signal.SIGKILL)
        while client.receive() is not None:
            pass
    daemon.wait_until_serving()
    daemon.wait_until_ready()
    assert daemon.pid_of() == worker


def test_restart_of_the_front_loses_no_accepted_job(daemon: Daemon) -> None:
    worker = daemon.pid_of()
    with daemon.connect() as client:
        client.start_long()
        os.kill(daemon.front_pid(), signal.SIGTERM)
        # A connection made now waits in the backlog for the next front.
        with daemon.connect() as late:
            late.ask_file("b")
            assert client.transcript("a")["attempts"] == 1
            assert late.transcript("b")["text"] == TEXTS[SHORT]
    # The old front may have taken the second one, too; the new one finds the same worker.
    daemon.wait_until_ready()
    assert daemon.pid_of() == worker


class Slow(Daemon):
    program = ("-m", "tests.support.changed", "tests.support.slow")


def test_worker_that_stops_while_loading_is_replaced(tmp_path: Path) -> None:
    """Its watchdog is not armed yet."""
    with Slow(tmp_path, "--start-timeout", "4", config="[worker]\ncpu_threads = 1\n") as daemon:
        wait_for("a worker that loads", lambda: daemon.workers()["0"]["pid"])
        stopped = daemon.pid_of()
        daemon.kill(number=signal.SIGSTOP)
        assert daemon.workers()["0"]["state"] == "loading"
        wait_for("its end", lambda: not alive(stopped))
        assert "not ready after 4 s" in daemon.log
        with daemon.connect() as client:
            client.ask_file("a")
            client.transcript("a")


@pytest.fixture
def crashing(tmp_path: Path) -> Path:
    return crashing_model(tmp_path)


def test_poison_job_fails_alone_after_two_crashes(tmp_path: Path, crashing: Path) -> None:
    config = "[front]\nqueue_max = 8\n[worker]\ncheck_model = false\ncpu_threads = 1"
    with (
        Daemon(tmp_path, "--model", str(crashing), config=config) as daemon,
        daemon.connect() as client,
    ):
        daemon.wait_until_ready()
        client.ask_file("poison", word_timestamps=True)
        for name in ("x", "y", "z"):
            client.ask_file(name)
        error = client.answer("poison").data
        assert error["code"] == Code.WORKER_CRASHED, error
        for name in ("x", "y", "z"):
            assert client.transcript(name)["text"] == TEXTS[SHORT]
        assert "SIGSEGV" in daemon.log
        assert daemon.workers()["0"]["restarts"] == 2


def test_unsafe_model_is_refused_and_can_be_fixed_live(tmp_path: Path, crashing: Path) -> None:
    with (
        Daemon(tmp_path, config="[worker]\ncpu_threads = 1\n") as daemon,
        daemon.connect() as client,
    ):
        daemon.wait_until_ready()
        (tmp_path / "asrd.toml").write_text(f"[worker]\nmodel = '{crashing}'\n")
        daemon.kill()
        wait_for("the worker to fail", lambda: daemon.workers()["0"]["state"] == "failed")
        assert "alignment_heads" in daemon.workers()["0"]["reason"]
        client.ask_file("a")
        error = client.answer("a").data
        assert error["code"] == Code.UNAVAILABLE
        assert "alignment_heads" in error["text"]
        (tmp_path / "asrd.toml").write_text("[worker]\nmodel = 'demo'\n")
        daemon.wait_until_ready()
        client.ask_file("b")
        assert client.transcript("b")["text"] == TEXTS[SHORT]


def test_wrong_setting_is_reported_with_file_and_line(tmp_path: Path) -> None:
    with Daemon(tmp_path, config="[worker]\ncpu_threads = 1") as daemon:
        daemon.wait_until_ready()
        (tmp_path / "worker-0.toml").write_text("\ncpu_treads = 1\n")
        daemon.kill()
        wait_for("the worker to fail", lambda: daemon.workers()["0"]["state"] == "failed")
        reason = daemon.workers()["0"]["reason"]
        assert "worker-0.toml:2: unknown key 'cpu_treads'" in reason
        (tmp_path / "worker-0.toml").unlink()
        daemon.wait_until_ready()


def test_cancel_stops_the_job_and_frees_the_worker(daemon: Daemon) -> None:
    worker = daemon.pid_of()
    with daemon.connect() as client:
        client.start_long()
        client.send("cancel", {"job_id": "a"})
        assert client.answer("a").data["code"] == Code.CANCELLED
        client.ask_file("b")
        assert client.transcript("b")["text"] == TEXTS[SHORT]
    assert daemon.pid_of() == worker


def test_idle_worker_exits_and_the_next_request_wakes_it(tmp_path: Path) -> None:
    config = "[worker]\nidle_exit_seconds = 0.5\ncpu_threads = 1\n"
    with Daemon(tmp_path, config=config) as daemon:
        daemon.wait_until_ready()
        worker = daemon.pid_of()
        wait_for("the worker to sleep", lambda: daemon.workers()["0"]["state"] == "asleep")
        wait_for("its process to end", lambda: not alive(worker))
        assert daemon.status()["state"] == "ok"
        with daemon.connect() as client:
            client.ask_file("a")
            assert client.transcript("a")["attempts"] == 1
        assert daemon.workers()["0"]["restarts"] == 0


def test_ten_crashes_in_a_row_and_still_serving(daemon: Daemon) -> None:
    before = daemon.workers()["0"]["restarts"]
    with daemon.connect() as client:
        for number in range(10):
            daemon.wait_until_ready()
            daemon.kill()
            client.ask_file(str(number))
            assert client.transcript(str(number))["text"] == TEXTS[SHORT]
    assert daemon.workers()["0"]["restarts"] == before + 10


@pytest.mark.parametrize("door", ["unix", "tcp"])
def test_wyoming_client_transcribes_unchanged(daemon: Daemon, door: str) -> None:
    uri = f"unix://{daemon.socket}"
    if door == "tcp":
        port = daemon.log.split("anybody who reaches 127.0.0.1:")[1].split()[0]
        uri = f"tcp://127.0.0.1:{port}"
        # The door stays open when the front dies.
        os.kill(daemon.front_pid(), signal.SIGKILL)

    async def converse() -> tuple[str, str]:
        async with AsyncClient.from_uri(uri) as client:
            await client.write_event(Describe().event())
            event = await client.read_event()
            assert event is not None
            info = Info.from_event(event)
            await client.write_event(Transcribe(language="en").event())
            with wave.open(str(SAMPLES / SHORT)) as file:
                for part in wav_to_chunks(file, 1024, start_event=True, stop_event=True):
                    await client.write_event(part.event())
            event = await client.read_event()
            assert event is not None
            return info.asr[0].models[0].name, Transcript.from_event(event).text

    assert anyio.run(converse) == ("demo", TEXTS[SHORT])


def test_spare_worker_takes_over_after_a_crash(tmp_path: Path) -> None:
    config = "[worker]\ncpu_threads = 1\nbeam_size = 1\n"
    with Daemon(tmp_path, "--spares", "1", config=config) as daemon, daemon.connect() as client:
        daemon.wait_until_ready("0", "1")
        assert [daemon.workers()[name]["spare"] for name in "01"] == [False, True]
        client.start_long("first")
        daemon.kill("0", signal.SIGSEGV)
        again = client.transcript("first")
        assert (again["attempts"], again["worker"]) == (2, "1")
        daemon.wait_until_ready("0", "1")
        client.ask_file("second")
        assert client.transcript("second")["worker"] == "0"


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--workers", "2") as daemon:
        daemon.wait_until_ready("0", "1")
        pids = [daemon.front_pid(), daemon.pid_of("0"), daemon.pid_of("1")]
        daemon.stop(signal.SIGINT)
        assert not any(alive(pid) for pid in pids)
        assert not Path(daemon.socket).exists()


def test_no_process_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.wait_until_serving()
    daemon.wait_until_ready()
    pids = [daemon.front_pid(), daemon.pid_of("0")]
    daemon.process.kill()
    daemon.process.wait()
    wait_for("its children to end", lambda: not any(alive(pid) for pid in pids))
    shutil.rmtree(next(p for p in tmp_path.iterdir() if p.name.startswith("asrd-")))
    daemon.stop()


def test_workers_divide_the_cores_unless_the_settings_say_how_many(tmp_path: Path) -> None:
    (tmp_path / "worker-1.toml").write_text("cpu_threads = 3\n")
    with Daemon(tmp_path, "--workers", "2", "--spares", "1") as daemon:
        daemon.wait_until_ready("0", "1", "2")
        workers = daemon.workers()
    threads = {name: worker["cpu_threads"] for name, worker in workers.items()}
    half = cores.divided(cores.usable(), 2)
    assert threads == {"0": half, "1": 3, "2": half}
    assert {worker["cores"] for worker in workers.values()} == {cores.usable()}


def test_spare_leaves_all_cores_to_the_worker(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--spares", "1") as daemon:
        daemon.wait_until_ready("0", "1")
        threads = [worker["cpu_threads"] for worker in daemon.workers().values()]
    assert threads == 2 * [cores.share(1)]
