"""`asrd run` with real workers and the real engine: what a crash costs, and what it must not."""

import json
import os
import shutil
import signal
import wave
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop, wav_to_chunks
from wyoming.client import AsyncClient
from wyoming.info import Describe, Info

from asrd.demo import MODEL, SAMPLES
from asrd.errors import Code
from tests.support.daemons import Daemon, alive, descriptors
from tests.support.raw import Peer, wait_for

TEXTS = {
    entry["file"]: entry["text"]
    for entry in map(json.loads, (SAMPLES / "references.jsonl").read_text().splitlines())
}
SHORT = "en-4.wav"
LONG = next(name for name in TEXTS if name.startswith("en-minute"))


def ask(client: Peer, job_id: str, sample: str = SHORT, **options: Any) -> None:
    with open(SAMPLES / sample, "rb") as file:
        client.send(
            "transcribe",
            {"job_id": job_id, "audio": {"encoding": "file"}, "language": "en", **options},
            fds=(file.fileno(),),
        )


def transcript(client: Peer, job_id: str) -> dict[str, Any]:
    event = client.answer(job_id)
    assert event.type == "transcript", event.data
    return event.data


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    config = "[front]\nqueue_max = 8\n[worker]\ncpu_threads = 1\nbeam_size = 1\n"
    with Daemon(tmp_path, "--watchdog", "2", config=config) as running:
        running.wait_until_ready()
        yield running


def test_the_bundled_model_is_used_with_a_notice(daemon: Daemon) -> None:
    with daemon.connect() as client:
        ask(client, "a")
        assert transcript(client, "a")["text"] == TEXTS[SHORT]
    (worker,) = daemon.status()["workers"]
    assert (worker["model"], worker["device"], worker["jobs_done"]) == ("demo", "cpu", 1)
    assert "using the bundled demo model" in daemon.log


def test_every_kind_of_option_reaches_the_engine(daemon: Daemon) -> None:
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
        ask(client, "a", **options)
        client.expect("accepted")
        kinds = []
        while (event := client.receive()) is not None and event.type != "transcript":
            kinds.append(event.type)
        assert event is not None
        assert set(kinds) == {"progress", "segment"}
        done = event.data
        words = [word["word"].strip() for s in done["segments"] for word in s["words"]]
        assert " ".join(words) == done["text"]


def test_a_language_is_detected_and_a_translation_made(daemon: Daemon) -> None:
    with daemon.connect() as client:
        ask(client, "de", "de-1.wav", language=None)
        assert transcript(client, "de")["language"] == "de"
        ask(client, "es", "es-1.wav", language="es", task="translate")
        assert transcript(client, "es")["text"] == "five five green"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_an_idle_worker_s_death_is_noticed_and_mended(daemon: Daemon, number: int) -> None:
    before = daemon.pid_of()
    daemon.kill(number=number)
    with daemon.connect() as client:
        ask(client, "a")
        assert transcript(client, "a")["text"] == TEXTS[SHORT]
    assert daemon.pid_of() != before
    assert daemon.workers()["0"]["restarts"] == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_death_in_the_middle_of_a_job_costs_one_retry(daemon: Daemon, number: int) -> None:
    with daemon.connect() as client:
        ask(client, "long", LONG, stream=True)
        ask(client, "queued")
        # The second's `accepted` may come before or after the first's `progress`.
        kinds = {client.receive_kind() for _ in range(3)}
        assert {"accepted", "progress"} <= kinds
        daemon.kill(number=number)
        done = transcript(client, "long")
        assert done["attempts"] == 2
        assert transcript(client, "queued")["attempts"] == 1
    assert daemon.status()["jobs"]["retried"] == 1
    death = daemon.workers()["0"]["last_death"]
    assert f"killed by {signal.Signals(number).name}" in death
    assert "job long" in death


def test_a_death_while_loading_costs_nothing(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon, daemon.connect() as client:
        ask(client, "a")
        wait_for("a worker that loads", lambda: daemon.workers()["0"]["pid"])
        daemon.kill()
        assert transcript(client, "a")["text"] == TEXTS[SHORT]


def test_with_two_workers_nobody_waits_for_a_restart(tmp_path: Path) -> None:
    config = "[worker]\ncpu_threads = 1"
    with Daemon(tmp_path, "--workers", "2", config=config) as daemon, daemon.connect() as client:
        daemon.wait_until_ready("0", "1")
        ask(client, "long", LONG, stream=True)
        client.expect("accepted")
        client.expect("progress")
        busy = next(n for n, w in daemon.workers().items() if w["state"] == "busy")
        daemon.kill(busy)
        done = transcript(client, "long")
        assert (done["attempts"], done["worker"]) == (2, "1" if busy == "0" else "0")


def test_a_stopped_worker_is_replaced_by_the_watchdog(daemon: Daemon) -> None:
    before = daemon.pid_of()
    with daemon.connect() as client:
        ask(client, "a", LONG, stream=True)
        client.expect("accepted")
        client.expect("progress")
        daemon.kill(number=signal.SIGSTOP)
        assert transcript(client, "a")["attempts"] == 2
    assert daemon.pid_of() != before
    assert not alive(before)


def test_a_stopped_front_is_replaced_and_the_worker_keeps_its_model(daemon: Daemon) -> None:
    front, worker = daemon.front_pid(), daemon.pid_of()
    os.kill(front, signal.SIGSTOP)
    wait_for("the front's death", lambda: not alive(front))
    daemon.wait_until_ready()
    assert daemon.front_pid() != front
    assert daemon.pid_of() == worker
    with daemon.connect() as client:
        ask(client, "a")
        assert transcript(client, "a")["text"] == TEXTS[SHORT]


def test_a_killed_front_stops_the_job_that_nobody_waits_for(daemon: Daemon) -> None:
    with daemon.connect() as client:
        ask(client, "a", LONG, stream=True)
        client.expect("accepted")
        client.expect("progress")
        worker = daemon.pid_of()
        os.kill(daemon.front_pid(), signal.SIGKILL)
        while client.receive() is not None:
            pass
    wait_for("a new front", lambda: _try(daemon.status))
    daemon.wait_until_ready()
    assert daemon.pid_of() == worker


def _try(call: Any) -> Any:
    try:
        return call()
    except OSError:
        return None


def test_a_front_restart_loses_no_accepted_job(daemon: Daemon) -> None:
    worker = daemon.pid_of()
    with daemon.connect() as client:
        ask(client, "a", LONG, stream=True)
        client.expect("accepted")
        client.expect("progress")
        os.kill(daemon.front_pid(), signal.SIGTERM)
        # Whoever comes now waits in the listening socket for the next front.
        with daemon.connect() as late:
            ask(late, "b")
            assert transcript(client, "a")["attempts"] == 1
            assert transcript(late, "b")["text"] == TEXTS[SHORT]
    # The old front may have taken the second one, too; the new one finds the same worker.
    daemon.wait_until_ready()
    assert daemon.pid_of() == worker


@pytest.fixture(scope="module")
def crashing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model with alignment heads that do not exist: CTranslate2 really segfaults when
    word timestamps are asked for."""
    model = tmp_path_factory.mktemp("model") / "crashing"
    shutil.copytree(MODEL, model)
    settings = json.loads((model / "config.json").read_text())
    settings["alignment_heads"] = [[1, 400_000]]
    (model / "config.json").write_text(json.dumps(settings))
    return model


def test_poison_is_refused_after_its_second_kill_and_its_neighbours_live(
    tmp_path: Path, crashing_model: Path
) -> None:
    config = "[front]\nqueue_max = 8\n[worker]\ncheck_model = false\ncpu_threads = 1"
    with (
        Daemon(tmp_path, "--model", str(crashing_model), config=config) as daemon,
        daemon.connect() as client,
    ):
        daemon.wait_until_ready()
        ask(client, "poison", word_timestamps=True)
        for name in ("x", "y", "z"):
            ask(client, name)
        error = client.answer("poison").data
        assert error["code"] == Code.WORKER_CRASHED, error
        for name in ("x", "y", "z"):
            assert transcript(client, name)["text"] == TEXTS[SHORT]
        assert "SIGSEGV" in daemon.log
        assert daemon.workers()["0"]["restarts"] == 2


def test_a_model_that_would_crash_is_refused_at_load_and_mended_live(
    tmp_path: Path, crashing_model: Path
) -> None:
    with (
        Daemon(tmp_path, config="[worker]\ncpu_threads = 1\n") as daemon,
        daemon.connect() as client,
    ):
        daemon.wait_until_ready()
        (tmp_path / "asrd.toml").write_text(f"[worker]\nmodel = '{crashing_model}'\n")
        daemon.kill()
        wait_for("the worker to fail", lambda: daemon.workers()["0"]["state"] == "failed")
        assert "alignment_heads" in daemon.workers()["0"]["reason"]
        ask(client, "a")
        error = client.answer("a").data
        assert error["code"] == Code.UNAVAILABLE
        assert "alignment_heads" in error["text"]
        (tmp_path / "asrd.toml").write_text("[worker]\nmodel = 'demo'\n")
        daemon.wait_until_ready()
        ask(client, "b")
        assert transcript(client, "b")["text"] == TEXTS[SHORT]


def test_a_wrong_setting_is_told_with_file_and_line(tmp_path: Path) -> None:
    with Daemon(tmp_path, config="[worker]\ncpu_threads = 1") as daemon:
        daemon.wait_until_ready()
        (tmp_path / "worker-0.toml").write_text("\ncpu_treads = 1\n")
        daemon.kill()
        wait_for("the worker to fail", lambda: daemon.workers()["0"]["state"] == "failed")
        told = daemon.workers()["0"]["reason"]
        assert "worker-0.toml:2: unknown key 'cpu_treads'" in told
        (tmp_path / "worker-0.toml").unlink()
        daemon.wait_until_ready()


def test_cancelling_stops_the_job_and_frees_the_worker(daemon: Daemon) -> None:
    worker = daemon.pid_of()
    with daemon.connect() as client:
        ask(client, "a", LONG, stream=True)
        client.expect("accepted")
        client.expect("progress")
        client.send("cancel", {"job_id": "a"})
        assert client.answer("a").data["code"] == Code.CANCELLED
        ask(client, "b")
        assert transcript(client, "b")["text"] == TEXTS[SHORT]
    assert daemon.pid_of() == worker


def test_a_job_that_does_not_stop_ends_its_worker(tmp_path: Path) -> None:
    config = "[worker]\ncancel_grace_seconds = 0\ncpu_threads = 1\n"
    with Daemon(tmp_path, config=config) as daemon, daemon.connect() as client:
        daemon.wait_until_ready()
        worker = daemon.pid_of()
        ask(client, "a", LONG, stream=True, beam_size=20)
        client.expect("accepted")
        client.expect("progress")
        client.send("cancel", {"job_id": "a"})
        assert client.answer("a").data["code"] == Code.CANCELLED
        ask(client, "b")
        assert transcript(client, "b")["text"] == TEXTS[SHORT]
        assert not alive(worker) or "did not stop" not in daemon.log


@pytest.mark.parametrize("stage", ["connected", "in the header", "in the payload", "accepted"])
def test_a_client_may_hang_up_at_any_stage(daemon: Daemon, stage: str) -> None:
    front = daemon.front_pid()
    before = descriptors(front)
    with daemon.connect() as client:
        if stage == "in the header":
            client.send_raw(b'{"type": "trans')
        elif stage == "in the payload":
            client.send_raw(b'{"type": "transcribe", "payload_length": 1000}\nabc')
        elif stage == "accepted":
            ask(client, "a", LONG)
            client.expect("accepted")
    with daemon.connect() as client:
        ask(client, "b")
        assert transcript(client, "b")["text"] == TEXTS[SHORT]
    wait_for("descriptors to be closed", lambda: descriptors(front) <= before)


def test_an_idle_worker_ends_and_the_next_request_wakes_it(tmp_path: Path) -> None:
    config = "[worker]\nidle_exit_seconds = 0.5\ncpu_threads = 1\n"
    with Daemon(tmp_path, config=config) as daemon:
        daemon.wait_until_ready()
        worker = daemon.pid_of()
        wait_for("the worker to sleep", lambda: daemon.workers()["0"]["state"] == "asleep")
        wait_for("its process to end", lambda: not alive(worker))
        assert daemon.status()["state"] == "ok"
        with daemon.connect() as client:
            ask(client, "a")
            assert transcript(client, "a")["attempts"] == 1
        assert daemon.workers()["0"]["restarts"] == 0


def test_ten_crashes_in_a_row_and_still_serving(daemon: Daemon) -> None:
    with daemon.connect() as client:
        for number in range(10):
            daemon.wait_until_ready()
            daemon.kill()
            ask(client, str(number))
            assert transcript(client, str(number))["text"] == TEXTS[SHORT]
    assert daemon.workers()["0"]["restarts"] == 10


BAD_AUDIO = {
    "text": b"this is no audio at all, whatever you do",
    "half a wav": (SAMPLES / SHORT).read_bytes()[:30],
    "nothing but a header": (SAMPLES / SHORT).read_bytes()[:44],
    "a playlist": b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n",
}


@pytest.mark.parametrize("name", BAD_AUDIO)
def test_what_does_not_decode_is_bad_audio(daemon: Daemon, name: str, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(BAD_AUDIO[name])
    with daemon.connect() as client, open(tmp_path / "bad", "rb") as file:
        audio = {"encoding": "file"}
        client.send("transcribe", {"job_id": "a", "audio": audio}, fds=(file.fileno(),))
        assert client.answer("a").data["code"] == Code.BAD_AUDIO


def test_the_real_wyoming_client_transcribes_unchanged(daemon: Daemon) -> None:
    async def converse() -> tuple[str, str]:
        async with AsyncClient.from_uri(f"unix://{daemon.socket}") as client:
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


def test_the_real_wyoming_client_gets_an_error_and_the_end(daemon: Daemon) -> None:
    """Home Assistant's older one waits for a transcript or the end, whatever else comes."""

    async def converse(audio: bytes, **asked: Any) -> list[str]:
        async with AsyncClient.from_uri(f"unix://{daemon.socket}") as client:
            await client.write_event(Transcribe(**asked).event())
            await client.write_event(AudioStart(16_000, 2, 1).event())
            await client.write_event(AudioChunk(16_000, 2, 1, audio).event())
            await client.write_event(AudioStop().event())
            found = []
            while (event := await client.read_event()) is not None:
                found.append(event.type)
                if event.type == "transcript":
                    break
            return found

    assert anyio.run(partial(converse, b"odd")) == ["error"]
    assert anyio.run(partial(converse, b"", language="en")) == ["transcript"]
    assert anyio.run(partial(converse, bytes(32_000), language="xx")) == ["error"]


def test_spare_worker_takes_over_after_a_crash(tmp_path: Path) -> None:
    config = "[worker]\ncpu_threads = 1\nbeam_size = 1\n"
    with Daemon(tmp_path, "--spares", "1", config=config) as daemon, daemon.connect() as client:
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


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--workers", "2") as daemon:
        daemon.wait_until_ready("0", "1")
        pids = [daemon.front_pid(), daemon.pid_of("0"), daemon.pid_of("1")]
        daemon.stop(signal.SIGINT)
        assert not any(alive(pid) for pid in pids)
        assert not Path(daemon.socket).exists()


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.wait_until_serving()
    daemon.wait_until_ready()
    pids = [daemon.front_pid(), daemon.pid_of("0")]
    daemon.process.kill()
    daemon.process.wait()
    wait_for("its children to end", lambda: not any(alive(pid) for pid in pids))
    shutil.rmtree(next(p for p in tmp_path.iterdir() if p.name.startswith("asrd-")))
    daemon.stop()
