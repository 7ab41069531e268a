"""`asrd transcribe`: no daemon before, none afterwards, and asrctl's own output between."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asrd.demo import MODEL, SAMPLES
from asrd.exitcodes import EXIT_CONFIG, Exit
from tests.support.daemons import Daemon, alive, crashing_model, environment
from tests.support.hub import serve
from tests.support.procfs import asleep, children
from tests.support.raw import PATIENCE, SHORT, TEXTS, wait_for
from tests.support.sounds import encoded
from tests.support.speech import long_recording
from tests.support.subprocesses import read_terminal

SAMPLE = str(SAMPLES / SHORT)
TOY = ("--model", str(MODEL), "--threads", "1", "--beam-size", "1", "--temperature", "0")
FILES = {path.name: path for path in MODEL.iterdir()}
# From Ctrl-C to the end, also on a machine that is busy with other tests.
_END_SECONDS = 4.0

Process = subprocess.Popen[str]
Start = Callable[..., Process]


def speech(directory: Path, seconds: float) -> str:
    path = directory / "speech.wav"
    path.write_bytes(encoded(long_recording(seconds, seed=1)[0], "wav"))
    return str(path)


@pytest.fixture(scope="module")
def minutes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file that is far from its end when the first window is done."""
    return speech(tmp_path_factory.mktemp("minutes"), 300)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts `asrd transcribe` on a machine without models and settings.

    `worker`: a module that runs instead of the worker. What a failed test leaves is killed.
    """
    started: list[Process] = []

    def start(*arguments: str, worker: str = "", env: Any = None, **streams: Any) -> Process:
        program = ["tests.support.changed", worker] if worker else ["asrd.main"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-m", *program, "transcribe", *arguments],
            env={**environment(tmp_path), "HF_HOME": str(tmp_path / "hf"), **(env or {})},
            text=True,
            **{"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, **streams},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def end(process: Process, tmp: Path) -> tuple[int, str, str]:
    """Returns exit code, stdout and stderr; the program must leave no directory."""
    out, err = process.communicate(None, PATIENCE)
    assert not [path.name for path in tmp.iterdir() if path.name.startswith("asrd-")]
    return process.returncode, out, err


def first_line(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def interrupted(process: Process, tmp: Path, number: int = signal.SIGINT) -> None:
    """Ends it with a signal, as promised: soon, and with all its processes."""
    wait_for("a wait in the kernel", lambda: asleep(process.pid))
    pids = children(process.pid)
    sent = time.monotonic()
    process.send_signal(number)
    code, _, err = end(process, tmp)
    assert code == Exit.INTERRUPTED
    assert err.endswith("asrd: interrupted\n")
    assert time.monotonic() - sent < _END_SECONDS
    assert not any(map(alive, pids))


def worker_of(process: Process) -> int:
    def find() -> int | None:
        for pid in children(process.pid):
            if b"asrd.worker.main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None

    return int(wait_for("the worker", find))


def asrctl(daemon: Daemon, *arguments: str) -> str:
    command = [sys.executable, "-m", "asrd.asrctl.cli", "--socket", daemon.socket, "transcribe"]
    return subprocess.run(
        [*command, *arguments], text=True, stdout=subprocess.PIPE, timeout=PATIENCE, check=True
    ).stdout


def texts(lines: str) -> list[Any]:
    """The part of the format json that does not depend on the run."""
    found = map(json.loads, lines.splitlines())
    return [(line["file"], line["model"], line["text"], line["segments"]) for line in found]


def test_output_is_that_of_asrctl(start: Start, tmp_path: Path) -> None:
    # German text in an English job shows that the options arrive.
    files = (SAMPLE, str(SAMPLES / "de-1.wav"))
    options = TOY[4:]
    config = "[worker]\ncpu_threads = 1\n"
    with Daemon(tmp_path, "--model", str(MODEL), config=config) as daemon:
        plain = asrctl(daemon, *files, *options)
        wanted = asrctl(daemon, *files, *options, "--format", "json", "--word-timestamps")
        subtitles = asrctl(daemon, SAMPLE, *options, "--format", "srt")
    assert end(start(*files, *TOY), tmp_path) == (0, plain, "")
    code, out, err = end(start(*files, *TOY, "--format", "json", "--word-timestamps"), tmp_path)
    assert (code, texts(out), err) == (0, texts(wanted), "")
    with open(SAMPLE, "rb") as stdin:
        piped = start("-", *TOY, "--format", "srt", stdin=stdin)
        assert end(piped, tmp_path) == (0, subtitles, "")


def test_failed_files_do_not_stop_the_others(start: Start, tmp_path: Path) -> None:
    text = tmp_path / "text.mp3"
    text.write_text("not audio")
    code, out, err = end(start("/no/file", str(text), SAMPLE, *TOY), tmp_path)
    assert (code, out) == (Exit.BAD_AUDIO, f"{TEXTS[SHORT]}\n")
    assert err.splitlines()[0] == "asrd: /no/file: No such file or directory"
    assert err.splitlines()[1].startswith(f"asrd: {text}: audio: ")


def test_without_any_file_there_is_no_daemon_and_no_question(start: Start, tmp_path: Path) -> None:
    code, out, err = end(start("/no/file", str(tmp_path)), tmp_path)
    assert (code, out) == (Exit.BAD_AUDIO, "")
    assert err == f"asrd: /no/file: No such file or directory\nasrd: {tmp_path}: Is a directory\n"


def test_settings_name_the_model(start: Start, tmp_path: Path) -> None:
    """Also the demo model, which is never taken otherwise; and limits of a front do not count."""
    (tmp_path / "asrd.toml").write_text("[front]\nmax_audio_seconds = 1\n[worker]\nmodel='demo'\n")
    process = start(SAMPLE, "--language", "en", env={"ASRD_FRONT_MAX_AUDIO_SECONDS": "1"})
    code, out, err = end(process, tmp_path)
    assert (code, out) == (0, f"{TEXTS[SHORT]}\n")
    assert "this was the demo model" in err


def test_without_model_terminal_and_consent_the_error_has_the_command(
    start: Start, tmp_path: Path
) -> None:
    code, out, err = end(start(SAMPLE), tmp_path)
    assert (code, out) == (EXIT_CONFIG, "")
    assert "`asrd fetch-model base` fetches it" in err


def test_missing_model_is_fetched_with_consent(start: Start, tmp_path: Path) -> None:
    keyboard, terminal = pty.openpty()
    with serve("some/model", FILES) as hub:
        endpoint = hub.endpoint
        process = start(
            *(SAMPLE, "--model", "some/model", "--language", "en"),
            stdin=terminal,
            stderr=terminal,
            env={"HF_ENDPOINT": endpoint},
        )
        os.close(terminal)
        seen = read_terminal(keyboard, lambda seen: "[Y/n] " in seen)
        assert f"Fetch some/model from {endpoint} into {tmp_path}/hf/hub?" in seen
        os.write(keyboard, b"y\n")
        read_terminal(keyboard, lambda seen: "loading the model some/model" in seen)
        assert end(process, tmp_path)[:2] == (0, f"{TEXTS[SHORT]}\n")
    os.close(keyboard)
    # From now on it is here, and needs no question.
    assert end(start(SAMPLE, "--model", "some/model"), tmp_path)[0] == 0


def test_ctrl_c_while_fetching(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        # The hub's library closes no connection.
        env = {"HF_ENDPOINT": endpoint, "PYTHONWARNINGS": "ignore"}
        process = start(SAMPLE, "--model", "some/model", "--yes", env=env)
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)
            interrupted(process, tmp_path)


def test_ctrl_c_while_loading(start: Start, tmp_path: Path) -> None:
    process = start(SAMPLE, *TOY, worker="tests.support.slow")
    wait_for("front and worker", lambda: len(children(process.pid)) == 2)
    interrupted(process, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_while_transcribing(start: Start, tmp_path: Path, minutes: str, number: int) -> None:
    process = start(minutes, *TOY)
    assert first_line(process)
    interrupted(process, tmp_path, number)


def test_killed_program_takes_its_processes_along(start: Start, minutes: str) -> None:
    process = start(minutes, *TOY)
    assert first_line(process)
    pids = children(process.pid)
    assert len(pids) == 2
    process.kill()
    process.communicate(None, PATIENCE)
    wait_for("their end", lambda: not any(map(alive, pids)))


def test_crash_of_the_engine_costs_a_retry(start: Start, tmp_path: Path) -> None:
    recording = speech(tmp_path, 150)
    undisturbed = end(start(recording, *TOY), tmp_path)
    output = tmp_path / "output"
    with output.open("w") as stdout:
        process = start(recording, *TOY, stdout=stdout)
        wait_for("the first segment", output.read_text)
        os.kill(worker_of(process), signal.SIGSEGV)
        code, _, err = end(process, tmp_path)
    assert (code, output.read_text(), err) == undisturbed


def test_worker_that_cannot_load_gives_its_reason(start: Start, tmp_path: Path) -> None:
    code, out, err = end(start(SAMPLE, "--model", str(crashing_model(tmp_path))), tmp_path)
    assert (code, out) == (EXIT_CONFIG, "")
    assert err.startswith("asrd: cannot load: ")
    assert "alignment_heads" in err


def test_worker_that_never_gets_ready_is_given_up(start: Start, tmp_path: Path) -> None:
    """A program that prints, too: nothing of it may get into the transcript."""
    code, out, err = end(start(SAMPLE, *TOY, worker="this"), tmp_path)
    assert (code, out) == (Exit.FAILED, "")
    assert err == (
        "asrd: asr-worker@0 never got ready, in 2 tries (exited with 0); --verbose shows its log\n"
    )


def test_demo_shows_a_crash_and_the_same_text(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "asrd.main", "demo"]
    process = subprocess.Popen(
        command, env=environment(tmp_path), text=True, stdout=subprocess.PIPE
    )
    code, out, _ = end(process, tmp_path)
    assert code == 0
    assert f"heard:  {TEXTS[SHORT]}\n  spoken: {TEXTS[SHORT]}\n" in out
    assert "(2 attempts, the same text)" in out
