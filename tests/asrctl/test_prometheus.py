"""`asrctl metrics`, held against the rules of Prometheus' text format."""

import re
from typing import Any

import pytest

from asrd.asrctl.cli import main
from asrd.asrctl.prometheus import STATES, WORKER_STATES, metrics
from asrd.asrctl.table import read_snapshot
from asrd.exitcodes import Exit
from asrd.front.reporting import snapshot
from asrd.front.scheduling.workers import WorkerState
from tests.asrctl.test_table import SNAPSHOT
from tests.support.fake_daemon import FakeDaemon
from tests.support.reporting import ALICE, front, peer

_VALUE = r'(?:[^"\\\n]|\\["\\n])*'
_SAMPLE = re.compile(
    rf'([a-z_]+)(?:\{{([a-z_]+="{_VALUE}"(?:,[a-z_]+="{_VALUE}")*)\}})? (-?\d[\d.e+-]*)'
)


def parsed(text: str) -> dict[str, tuple[str, dict[str, float]]]:
    """Type and samples of each family. Fails where the text breaks a rule of the format: each line
    ends, a family stands in one piece behind its HELP and TYPE, and no sample comes twice."""
    assert text.endswith("\n")
    found: dict[str, tuple[str, dict[str, float]]] = {}
    lines = iter(text.splitlines())
    family = ""
    for line in lines:
        if line.startswith("# HELP "):
            family = line.split()[2]
            kind = next(lines)
            assert re.fullmatch(rf"# TYPE {family} (counter|gauge|summary)", kind)
            assert family not in found
            found[family] = kind.split()[3], {}
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample is not None, line
        assert sample[1] == family
        assert (sample[2] or "") not in found[family][1]
        found[family][1][sample[2] or ""] = float(sample[3])
    for name, (kind, samples) in found.items():
        assert samples
        assert name.startswith("asrd_")
        assert name.endswith("_total") == (kind == "counter")
    return found


def test_the_figures_of_a_snapshot() -> None:
    found = {
        name: samples for name, (_, samples) in parsed(metrics(read_snapshot(SNAPSHOT))).items()
    }
    assert found["asrd_info"] == {'version="0.1.0"': 1}
    assert found["asrd_state"] == {f'state="{s}"': float(s == "degraded") for s in STATES}
    assert found["asrd_queue_oldest_wait_seconds"] == {"": 1.5}
    assert found["asrd_jobs_done_total"] == {"": 12}
    assert found["asrd_jobs_failed_total"] == {'code="bad-audio"': 2, 'code="worker-crashed"': 1}
    assert found["asrd_jobs_refused_total"] == {'code="busy"': 7}
    assert found["asrd_run_seconds"] == {
        'quantile="0.5"': 0.31,
        'quantile="0.95"': 1.2,
        'quantile="0.99"': 125,
    }
    assert found["asrd_worker_restarts_total"] == {'worker="0"': 1, 'worker="1"': 0}
    states = found["asrd_worker_state"]
    assert len(states) == 2 * len(WORKER_STATES)
    assert [key for key, value in states.items() if value] == [
        'worker="0",state="busy"',
        'worker="1",state="failed"',
    ]


def test_every_family_is_there_from_the_first_moment() -> None:
    """But for those by code, which come with their first sample."""
    shown = read_snapshot(snapshot.snapshot(front("0"), peer(ALICE), now=103.5))
    assert len(parsed(metrics(shown))) == 18


def test_every_state_there_is() -> None:
    assert set(WORKER_STATES) == {state.value for state in WorkerState} | {"busy"}


def test_a_label_cannot_break_its_line() -> None:
    risky: dict[str, Any] = {"state": "ok", "workers": [{"name": 'a"b\\c\nd\x1b'}]}
    found = parsed(metrics(read_snapshot(risky)))
    (label,) = found["asrd_worker_restarts_total"][1]
    assert label == 'worker="a\\"b\\\\c\\\\nd\\\\x1b"'


def test_asrctl_prints_them(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASRD_SOCKET", str(tmp_path / "sock"))
    with FakeDaemon(tmp_path / "sock"):
        assert main(["metrics"]) == Exit.OK
    assert "asrd_state" in parsed(capsys.readouterr().out)
