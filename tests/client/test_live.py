"""Both clients and asrctl against `asrd run` with the real engine and the demo model."""

import os
import re
import signal
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import pytest

from asrd import AsyncClient, Client
from asrd.demo import SAMPLES
from asrd.errors import Busy
from asrd.exitcodes import Exit
from asrd.wire.client_events import Progress
from tests.support.daemons import Daemon
from tests.support.paths import ROOT
from tests.support.raw import TEXTS, wait_for
from tests.support.subprocesses import started

SHORT = SAMPLES / "en-4.wav"
MINUTE = SAMPLES / "en-minute.flac"
PATIENCE = 60.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all tests that do not stop it. Its queue is short, so that many jobs at once
    are refused."""
    config = "[front]\nqueue_max = 2\n[worker]\ncpu_threads = 1\nbeam_size = 1\n"
    with Daemon(tmp_path_factory.mktemp("shared"), config=config) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture
def daemon(shared: Daemon) -> Daemon:
    shared.wait_until_ready()
    return shared


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(daemon.socket) as client:
        yield client


def samples(path: Path) -> Any:
    """Returns the recording as int16 samples at 16 kHz."""
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def test_every_kind_of_audio_gives_the_same_text(client: Client) -> None:
    pcm = samples(SHORT)
    as_float = pcm.astype(np.float32) / 32768
    stereo = np.stack([pcm, pcm], axis=1)
    with open(SHORT, "rb") as file:
        found = [
            client.transcribe(SHORT, language="en"),
            client.transcribe(str(SHORT), language="en"),
            client.transcribe(file, language="en"),
            # The daemon reads by offset, so the position of the shared file has not moved.
            client.transcribe(file.read(), language="en"),
            client.transcribe(SHORT.read_bytes(), language="en"),
            client.transcribe(pcm, language="en"),
            client.transcribe(as_float, language="en"),
            client.transcribe(as_float.astype(np.float64), language="en"),
            client.transcribe(pcm.astype(np.int32) << 16, language="en"),
            client.transcribe(stereo, language="en"),
            client.transcribe(pcm.tobytes(), encoding="pcm_s16le", language="en"),
        ]
    assert [transcript.text for transcript in found] == [TEXTS[SHORT.name]] * len(found)
    assert {transcript.duration_ms for transcript in found} == {round(len(pcm) / 16)}


def test_segments_arrive_in_order(client: Client) -> None:
    heard: list[Progress] = []
    with client.stream(MINUTE, language="en", on_progress=heard.append) as stream:
        segments = list(stream)
    assert len(segments) > 2
    assert tuple(segments) == stream.transcript.segments
    done = [progress.audio_seconds_done for progress in heard]
    assert done == sorted(done)
    assert heard[-1].audio_seconds == pytest.approx(stream.transcript.duration_ms / 1000, abs=0.1)


def test_stream_left_early_frees_the_worker(client: Client) -> None:
    for _ in range(3):
        with client.stream(MINUTE, language="en") as stream:
            next(stream)
    assert client.transcribe(SHORT, language="en").text == TEXTS[SHORT.name]
    assert client.cancel(stream.job_id) == 0


def test_only_short_timeouts_raise_busy(client: Client, daemon: Daemon) -> None:
    texts = []

    def work() -> None:
        texts.append(client.transcribe(SHORT, language="en", timeout=PATIENCE).text)

    threads = [threading.Thread(target=work) for _ in range(8)]
    with client.stream(MINUTE, language="en") as running:
        next(running)
        for thread in threads:
            thread.start()
        wait_for("a full queue", lambda: daemon.status()["queue"]["depth"] == 2)
        with pytest.raises(Busy) as refused:
            client.transcribe(SHORT, timeout=0.05)
        assert refused.value.retry_after_ms is not None
    for thread in threads:
        thread.join()
    assert texts == [TEXTS[SHORT.name]] * 8


def test_job_survives_its_worker(client: Client, daemon: Daemon) -> None:
    indices = []
    with client.stream(MINUTE, language="en", temperature=0.0) as stream:
        indices.append(next(stream).id)
        daemon.kill(number=signal.SIGSEGV)
        indices += [segment.id for segment in stream]
    assert stream.transcript.attempts == 2
    assert indices == [segment.id for segment in stream.transcript.segments]


def test_job_survives_the_front(tmp_path: Path) -> None:
    config = "[worker]\ncpu_threads = 1\nbeam_size = 1\n"
    with Daemon(tmp_path, config=config) as daemon, Client(daemon.socket) as client:
        daemon.wait_until_ready()
        with client.stream(MINUTE, language="en", temperature=0.0) as stream:
            first = next(stream)
            front = daemon.front_pid()
            subprocess.run(["kill", "-KILL", str(front)], check=True)
            rest = list(stream)
        assert (first, *rest) == stream.transcript.segments
        assert daemon.front_pid() != front


@pytest.mark.anyio
async def test_many_tasks_share_a_connection(daemon: Daemon) -> None:
    """Most jobs are refused at first; all succeed in the end."""
    found: dict[str, str] = {}
    names = [f"en-{number}.wav" for number in range(6)] * 4
    async with AsyncClient(daemon.socket) as client, anyio.create_task_group() as tasks:

        async def work(job_id: str, name: str) -> None:
            done = await client.transcribe(SAMPLES / name, language="en", job_id=job_id)
            found[job_id] = done.text

        for number, name in enumerate(names):
            tasks.start_soon(work, f"{number}:{name}", name)
    assert len(found) == len(names)
    for job_id, text in found.items():
        assert text == TEXTS[job_id.partition(":")[2]]


def asrctl(daemon: Daemon, *arguments: str) -> tuple[int, str, str]:
    program = started("--socket", daemon.socket, *arguments)
    out, err = program.communicate(None, PATIENCE)
    return program.returncode, out.decode(), err.decode()


def test_asrctl_works_with_a_real_daemon(daemon: Daemon) -> None:
    code, out, err = asrctl(daemon, "transcribe", "--language", "en", str(SHORT))
    assert (code, " ".join(out.split())) == (Exit.OK, TEXTS[SHORT.name])
    # The demo model is not representative.
    assert err.startswith("asrctl: this was the demo model")
    code, out, err = asrctl(
        daemon, "transcribe", "--quiet", "--language", "en", "--format", "srt", str(MINUTE)
    )
    assert (code, err) == (Exit.OK, "")
    assert out.startswith("1\n00:00:0")
    assert out.count(" --> ") > 2
    code, out, _ = asrctl(daemon, "transcribe", sys.executable)
    assert (code, out) == (Exit.BAD_AUDIO, "")
    code, out, _ = asrctl(daemon, "status")
    assert code == Exit.OK
    assert "\nWORKER  STATE" in out
    assert " demo " in out
    code, out, _ = asrctl(daemon, "health")
    assert (code, out[:3]) == (0, "ok:")
    assert asrctl(daemon, "ping")[0] == asrctl(daemon, "describe")[0] == Exit.OK


def example_of_live_text() -> str:
    page = (ROOT / "docs" / "client.md").read_text()
    examples: list[str] = re.findall(r"```python\n(.*?)```", page, re.S)
    (example,) = [text for text in examples if "client.live(" in text]
    return example


def test_live_text_of_a_pipe(daemon: Daemon, tmp_path: Path) -> None:
    """The example of docs/client.md, and asrctl: raw samples and a WAV file."""
    pcm = samples(SHORT).tobytes()
    example = [sys.executable, "-W", "error", "-c", example_of_live_text()]
    asrctl = [sys.executable, "-m", "asrd.asrctl.cli", "transcribe", "--live", "--language", "en"]
    found = [
        subprocess.run(
            argv,
            input=audio,
            env={**os.environ, "ASRD_SOCKET": daemon.socket},
            capture_output=True,
            check=True,
            timeout=PATIENCE,
        ).stdout.decode()
        for argv, audio in ((example, pcm), (asrctl, pcm), (asrctl, SHORT.read_bytes()))
    ]
    text = TEXTS[SHORT.name]
    assert found[0] == f"{text}\n{round(len(pcm) / 32)} ms\n"
    assert [" ".join(each.split()) for each in found[1:]] == [text, text]
