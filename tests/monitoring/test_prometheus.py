"""A real Prometheus (Debian's) scrapes a real daemon, by the examples that the package ships."""

import json
import signal
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.daemons import Daemon
from tests.support.http import HttpProgram
from tests.support.monitoring import DASHBOARD, EXAMPLES, QUERIES
from tests.support.paths import ROOT
from tests.support.raw import PATIENCE, wait_for

pytestmark = pytest.mark.monitoring

# Without a value in the dashboard here: no job ends while it is scraped, none was refused, and
# nothing has failed yet.
EMPTY = ("asrd_jobs_ended_total", "asrd_jobs_refused_total", "asrd_worker_failures_total")


def promtool(*arguments: str, given: bytes = b"") -> str:
    done = subprocess.run(
        ["promtool", *arguments],
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    text = done.stdout.decode()
    assert done.returncode == 0, text
    return text


class Prometheus:
    """Scrapes that address twice a second, with the example's rules."""

    def __init__(self, tmp: Path, target: str) -> None:
        self.tmp = tmp
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        settings = (EXAMPLES / "prometheus.yml").read_text()
        settings = settings.replace("15s", "500ms").replace("127.0.0.1:8000", target)
        (tmp / "prometheus.yml").write_text(settings.replace("rules/", f"{EXAMPLES}/"))
        promtool("check", "config", str(tmp / "prometheus.yml"))

    def __enter__(self) -> Self:
        self._log = open(self.tmp / "prometheus-log", "wb")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={self.tmp / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.tmp / 'tsdb'}",
                f"--web.listen-address={self.address}",
            ],
            stdout=self._log,
            stderr=self._log,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)
        self._log.close()

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer, which must be a success."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(error.read().decode()) from None

    def value(self, query: str) -> float | None:
        """The value of the only sample, if there is one."""
        result = self.get("query", query=query)["result"]
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    def scrapes(self) -> bool:
        try:
            return self.value('up{job="asrd"}') == 1
        except (OSError, AssertionError):
            # It is not there yet, or replays its log.
            return False

    def alerts(self, state: str = "firing") -> dict[str, str]:
        """The names of the alerts in that state, with the worker concerned."""
        alerts = self.get("alerts")["alerts"]
        labels = (alert["labels"] for alert in alerts if alert["state"] == state)
        return {found["alertname"]: found.get("worker", "") for found in labels}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path) as running:
        running.wait_until_ready()
        with running.connect() as client:
            client.ask_file("a")
            client.transcript("a")
        yield running


@pytest.fixture
def program(daemon: Daemon, tmp_path: Path) -> Iterator[HttpProgram]:
    with HttpProgram(tmp_path, daemon.socket, "drain_seconds = 0") as running:
        yield running


def test_promtool_accepts_the_rules_and_their_tests() -> None:
    """`--lint-fatal`: also what promtool only advises against."""
    rules = str(EXAMPLES / "asrd.rules.yml")
    assert "12 rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", rules)
    tests = str(ROOT / "tests" / "monitoring" / "asrd.rules.test.yml")
    assert "SUCCESS" in promtool("test", "rules", tests)


def test_promtool_has_nothing_to_say_about_the_metrics(program: HttpProgram) -> None:
    answer = program.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert promtool("check", "metrics", given=answer.body) == ""


def test_prometheus_reads_a_daemon_and_alerts_when_a_worker_crashes_in_a_loop(
    daemon: Daemon, program: HttpProgram, tmp_path: Path
) -> None:
    with Prometheus(tmp_path, f"127.0.0.1:{program.port}") as prometheus:
        wait_for("the first scrape", prometheus.scrapes)
        # By its `Accept` it gets OpenMetrics, whose metrics have other types.
        kinds = {name: of[0]["type"] for name, of in prometheus.get("metadata").items()}
        assert kinds["asrd_jobs_ended"] == "counter"
        assert prometheus.value('asrd_jobs_ended_total{code="ok"}') == 1
        assert prometheus.value("asrd_job_run_seconds_count") == 1
        scrapes = "count_over_time(asrd_uptime_seconds[1m]) > 1"
        wait_for("two scrapes", lambda: prometheus.value(scrapes))
        assert len(QUERIES) == 4
        for query in (*DASHBOARD, *QUERIES):
            found = query.replace("$instance", ".*").replace("$__rate_interval", "1m")
            result = prometheus.get("query", query=found)["result"]
            assert result or any(name in query for name in EMPTY), query
        assert prometheus.alerts() == {}
        for crashes in (1, 2, 3):
            daemon.kill(number=signal.SIGSEGV)
            counted = {"signal": crashes}
            wait_for("the count", lambda: daemon.workers()["0"]["failures"] == counted)  # noqa: B023
            daemon.wait_until_ready()
        wait_for("the alert", lambda: prometheus.alerts() == {"AsrdWorkerCrashLoop": "0"})
        assert prometheus.value('asrd_worker_failures_total{cause="signal"}') == 3
        wait_for("the daemon", lambda: prometheus.value("asrd_up") == 1)
        daemon.stop()
        wait_for("the alert", lambda: prometheus.alerts("pending") == {"AsrdGone": ""})
        assert (prometheus.value("asrd_up"), prometheus.scrapes()) == (0, True)
