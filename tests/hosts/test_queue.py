"""The example of a queue (docs/scaling.md), with a real Redis and a real daemon."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asrd.demo import SAMPLES
from tests.support.daemons import Daemon, environment
from tests.support.paths import ROOT
from tests.support.raw import LONG, PATIENCE, SHORT, TEXTS, wait_for
from tests.support.wyoming_page import block

pytestmark = pytest.mark.hosts

PAGE = (ROOT / "docs" / "scaling.md").read_text()
CONSUMER = ROOT / "packaging" / "examples" / "redis_consumer.py"
# One job runs and none waits, so that a second consumer is refused.
ONE_AT_A_TIME = "[front]\nqueue_max = 0\n[worker]\nslots = 1\n"


class Redis:
    """Debian's server at a Unix socket, with its data in memory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "redis.sock"
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", str(self.path), "--save", ""],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def ask(self, *words: str) -> str:
        argv = ["redis-cli", "-s", str(self.path), *words]
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=PATIENCE, check=True
        ).stdout

    def add(self, name: str) -> None:
        self.ask("XADD", "asr:jobs", "*", "file", str(SAMPLES / name))

    def done(self) -> list[dict[str, str]]:
        """The answers, in their order."""
        found = json.loads(self.ask("--json", "XRANGE", "asr:done", "-", "+"))
        return [dict(zip(each[1][::2], each[1][1::2], strict=True)) for each in found]

    def jobs(self) -> int:
        return int(self.ask("XLEN", "asr:jobs"))

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    try:
        wait_for("Redis", server.path.exists)
        yield server
    finally:
        server.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "d").mkdir()
    with Daemon(tmp_path / "d", config=ONE_AT_A_TIME) as running:
        running.wait_until_ready()
        yield running


@contextmanager
def consumer(
    redis: Redis, daemon: Daemon, name: str, path: Path = CONSUMER
) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, str(path), f"unix://{redis.path}", name],
        env=environment(daemon.tmp)
        | {"ASRD_SOCKET": daemon.socket, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def short(done: dict[str, str]) -> bool:
    return done == {"file": str(SAMPLES / SHORT), "text": TEXTS[SHORT]}


def test_commands_of_the_page(redis: Redis, daemon: Daemon, tmp_path: Path) -> None:
    script = block("sh", "XADD", PAGE).replace("redis-cli", f"redis-cli -s {redis.path}")
    script = script.replace("/srv/audio/talk.mp3", str(SAMPLES / SHORT))
    with consumer(redis, daemon, "a"):
        found = subprocess.run(
            ["sh", "-ec", script], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
    assert TEXTS[SHORT] in found.stdout


def test_each_job_has_one_answer_though_the_daemon_is_busy(redis: Redis, daemon: Daemon) -> None:
    for _ in range(10):
        redis.add(SHORT)
    with consumer(redis, daemon, "a"), consumer(redis, daemon, "b"), consumer(redis, daemon, "c"):
        wait_for("all answers", lambda: len(redis.done()) >= 10 and not redis.jobs())
    assert len(redis.done()) == 10 and all(map(short, redis.done()))
    assert daemon.status()["jobs"]["refused"]["busy"] > 0


def test_wrong_job_is_answered_with_its_error(redis: Redis, daemon: Daemon) -> None:
    redis.add("none.wav")
    redis.add("references.jsonl")
    redis.ask("XADD", "asr:jobs", "*", "id", "7")
    redis.add(SHORT)
    with consumer(redis, daemon, "a"):
        wait_for("all answers", lambda: len(redis.done()) == 4)
    *wrong, last = redis.done()
    assert all(each["error"] and "text" not in each for each in wrong)
    assert wrong[2]["id"] == "7" and short(last)
    assert redis.jobs() == 0


def test_job_of_a_dead_consumer_goes_to_another(
    redis: Redis, daemon: Daemon, tmp_path: Path
) -> None:
    """It is not acknowledged. Two times are changed: the one until a consumer is dead, and the one
    that it waits for a job, which is longer than redis-py's own limit of 5 s for an answer."""
    quick = tmp_path / "quick.py"
    text = CONSUMER.read_text().replace("DEAD_MS = 600_000", "DEAD_MS = 2_000")
    quick.write_text(text.replace("block=5000", "block=6000"))
    redis.add(LONG)
    with consumer(redis, daemon, "a", quick):
        wait_for("the job", lambda: daemon.workers()["0"]["jobs"])
    assert redis.done() == [] and redis.jobs() == 1
    with consumer(redis, daemon, "b", quick):
        (done,) = wait_for("its answer", redis.done)
    assert len(done["text"].split()) > 50 and redis.jobs() == 0


def test_consumer_outlives_a_restart_of_the_daemon(redis: Redis, daemon: Daemon) -> None:
    redis.add(LONG)
    redis.add(SHORT)
    with consumer(redis, daemon, "a") as process:
        wait_for("the job", lambda: daemon.workers()["0"]["jobs"])
        os.kill(daemon.front_pid(), signal.SIGKILL)
        wait_for("all answers", lambda: len(redis.done()) == 2)
        assert process.poll() is None
    assert all("text" in each for each in redis.done())
