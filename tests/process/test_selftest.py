"""`asrd run` with a model that gives wrong text: no client takes its silence for a transcript."""

import json
import shutil
from pathlib import Path

import pytest

from asrd import Client
from asrd.demo import MODEL
from asrd.errors import Code
from asrd.exitcodes import EXIT_CONFIG
from tests.support.daemons import Daemon
from tests.support.damage import damage, zeroed
from tests.support.raw import PATIENCE, SHORT, TEXTS, wait_for
from tests.support.silenced import ALL, FIRST

REASON = "the model gives wrong text on cpu (int8_float32): the model fails its self-test"
CONFIG = "[front]\nqueue_max = 8\n[worker]\ncpu_threads = 1\nbeam_size = 1\n"
# Long enough that its silence is suspicious.
SPOKEN = "en-several.wav"


class Silencing(Daemon):
    program = ("-m", "tests.support.changed", "tests.support.silenced")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    model = Path(shutil.copytree(MODEL, tmp_path / "damaged"))
    damage(model, "encoder/layer_norm/gamma", zeroed)
    return model


def test_damaged_model_never_becomes_ready(tmp_path: Path, damaged: Path) -> None:
    with Daemon(tmp_path, config=CONFIG) as daemon, daemon.connect() as client:
        daemon.wait_until_ready()
        (tmp_path / "asrd.toml").write_text(f"{CONFIG}model = '{damaged}'\n")
        daemon.kill()
        wait_for("the worker to fail", lambda: daemon.workers()["0"]["state"] == "failed")
        assert daemon.workers()["0"]["reason"].startswith(REASON)
        assert daemon.workers()["0"]["failures"]["self-test"] >= 1
        client.ask_file("a")
        error = client.answer("a").data
        assert error["code"] == Code.UNAVAILABLE
        assert REASON in error["text"]
        (tmp_path / "asrd.toml").write_text(f"{CONFIG}model = 'demo'\n")
        daemon.wait_until_ready()
        client.ask_file("b")
        assert client.transcript("b")["text"] == TEXTS[SHORT]


def test_asrd_run_gives_up_on_a_damaged_model(tmp_path: Path, damaged: Path) -> None:
    daemon = Daemon(tmp_path, "--model", str(damaged), config=CONFIG)
    try:
        assert daemon.process.wait(PATIENCE) == EXIT_CONFIG
        assert REASON in daemon.log.splitlines()[-1]
    finally:
        daemon.stop()


def test_job_of_a_worker_that_fell_silent_is_answered_by_another(tmp_path: Path) -> None:
    with Silencing(tmp_path, "--workers", "2", config=CONFIG) as daemon:
        daemon.wait_until_ready("0", "1")
        with daemon.connect() as client:
            client.ask_file("a", SPOKEN)
            expected = client.transcript("a")
            client.ask_file("b", SPOKEN, initial_prompt=FIRST)
            found = client.transcript("b")
        assert (expected["attempts"], found["attempts"]) == (1, 2)
        assert found["text"] == expected["text"]
        assert daemon.status()["jobs"]["retried"] == 1
        with Client(daemon.socket) as asking:
            (crash,) = asking.status(crashes=True)["crashes"]
        assert crash["noticed"].startswith(f"it ended itself: {REASON}")
        assert [job["job_id"] for job in crash["jobs"]] == ["b"]
        daemon.wait_until_ready("0", "1")
        assert daemon.workers()[crash["worker"]]["failures"] == {"self-test": 1}


def test_silence_of_all_workers_is_an_error(tmp_path: Path) -> None:
    with Silencing(tmp_path, config=CONFIG) as daemon, daemon.connect() as client:
        daemon.wait_until_ready()
        client.ask_file("a", SPOKEN, initial_prompt=ALL)
        error = client.answer("a").data
        assert error["code"] == Code.WORKER_CRASHED
        assert REASON in error["text"], json.dumps(error)
        client.ask_file("b")
        assert client.transcript("b")["text"] == TEXTS[SHORT]
