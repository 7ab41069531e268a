"""The monitoring page, rules and dashboard name the metrics that there are."""

import re
import subprocess
from pathlib import Path

import pytest

from asrd.errors import Cause
from asrd.front.reporting.metrics import AUDIO_BOUNDS, FACTOR_BOUNDS, TIME_BOUNDS
from asrd.prometheus import metrics
from asrd.snapshot import read_snapshot
from tests.support.monitoring import DASHBOARD, EXAMPLES, PAGE
from tests.support.paths import ROOT
from tests.support.status import SNAPSHOT

RULES = (EXAMPLES / "asrd.rules.yml").read_text()
# As asrd-http gives them, which has one more than the daemon.
METRICS = metrics(read_snapshot(SNAPSHOT), responses={200: 1})
# Name to type; the names are those of the older format, as Prometheus stores them.
KINDS = dict(re.findall(r"^# TYPE (\S+) (\S+)$", METRICS, re.MULTILINE))


def rows(heading: str) -> list[list[str]]:
    """The cells of the tables in a section of the page."""
    section = PAGE.split(f"# {heading}\n")[1].split("\n#")[0]
    lines = re.findall(r"^\| (`.*) \|$", section, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def test_page_has_every_metric_with_its_type_and_labels() -> None:
    described = {row[0].strip("`"): row[1:] for row in rows("Every metric") if len(row) > 2}
    assert described.keys() == KINDS.keys()
    for name, (kind, named, *_) in described.items():
        assert kind == ("info" if name.endswith("_info") else KINDS[name]), name
        sample = re.search(rf"^{name}(?:\{{(.*)\}})? ", METRICS, re.MULTILINE)
        found = re.findall(r'(\w+)="', sample[1] or "") if sample else []
        assert re.findall(r"`(\w+)`", named) == found, name


def test_page_has_the_buckets_as_they_are_printed() -> None:
    bounds = {
        name: row[1].split(", ")
        for row in rows("Every metric")
        if len(row) == 2
        for name in re.findall(r"`(\w+)`", row[0])
    }
    assert bounds == {
        "asrd_job_wait_seconds": list(map(str, TIME_BOUNDS)),
        "asrd_job_run_seconds": list(map(str, TIME_BOUNDS)),
        "asrd_job_audio_seconds": list(map(str, AUDIO_BOUNDS)),
        "asrd_job_real_time_factor": list(map(str, FACTOR_BOUNDS)),
    }


def test_page_explains_every_cause_and_alert() -> None:
    assert [row[0].strip("`") for row in rows("Causes of a worker's end")] == list(Cause)
    alerts = re.findall(r"- alert: (\w+)", RULES)
    assert [row[0].strip("`") for row in rows("Alerts")] == alerts


def test_each_alert_has_a_test_in_which_it_fires() -> None:
    """promtool runs them (test_prometheus.py)."""
    tests = (ROOT / "tests" / "monitoring" / "asrd.rules.test.yml").read_text()
    assert set(re.findall(r"- alert: (\w+)", RULES)) == set(
        re.findall(r"alertname: (\w+)\n +exp_alerts:", tests)
    )


@pytest.mark.parametrize("text", [RULES, "\n".join(DASHBOARD), PAGE])
def test_only_metrics_that_exist_are_named(text: str) -> None:
    for name in set(re.findall(r"\basrd_\w+", text)):
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        assert name in KINDS or KINDS.get(family) == "histogram", name


def test_package_ships_the_examples() -> None:
    shipped = (ROOT / "packaging" / "debian" / "asrd.examples").read_text().split()
    assert str(EXAMPLES.relative_to(ROOT)) in shipped
    for name in re.findall(r"examples/monitoring/([\w.-]+?)(?:\.\*)?(?=\s)", PAGE):
        assert list(EXAMPLES.glob(f"{name}*")), name


def test_textfile_service_writes_the_metrics_or_removes_them(tmp_path: Path) -> None:
    """A stale file would show a daemon that is gone as healthy."""
    service = (EXAMPLES / "asrd-textfile.service").read_text()
    (command,) = re.findall(r"^ExecStart=/bin/sh -c '(.*)'$", service, re.MULTILINE)
    asrctl = tmp_path / "asrctl"
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    for script, left in (("echo asrd_state 1", {"asrd.prom"}), ("echo half; exit 3", set())):
        asrctl.write_text(f"#!/bin/sh\n{script}\n")
        asrctl.chmod(0o755)
        subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, env=path, check=True)
        assert {file.name for file in tmp_path.glob("*.prom*")} == left
