"""`asrctl metrics`, checked against the rules of Prometheus' text format."""

import re

from asrd.asrctl.prometheus import STATES, WORKER_STATES, metrics
from asrd.asrctl.snapshot import read_snapshot
from asrd.front.scheduling.workers import WorkerState
from tests.support.status import SNAPSHOT

_VALUE = r'(?:[^"\\\n]|\\["\\n])*'
_SAMPLE = re.compile(
    rf'([a-z_]+)(?:\{{([a-z_]+="{_VALUE}"(?:,[a-z_]+="{_VALUE}")*)\}})? (-?\d[\d.e+-]*)'
)


def parsed(text: str) -> dict[str, dict[str, float]]:
    """Returns the samples of each family. Fails if the text breaks a rule of the format: each line
    ends, a family follows its HELP and TYPE in one piece, and no sample is repeated."""
    assert text.endswith("\n")
    found: dict[str, dict[str, float]] = {}
    lines = iter(text.splitlines())
    family = ""
    for line in lines:
        if line.startswith("# HELP asrd_"):
            family = line.split()[2]
            kind = next(lines)
            assert re.fullmatch(rf"# TYPE {family} (counter|gauge|summary)", kind)
            assert family.endswith("_total") == kind.endswith(" counter")
            assert all(found.values())
            assert family not in found
            found[family] = {}
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample is not None, line
        assert sample[1] == family
        assert (sample[2] or "") not in found[family]
        found[family][sample[2] or ""] = float(sample[3])
    return found


def test_metrics_have_the_figures_of_the_snapshot() -> None:
    found = parsed(metrics(read_snapshot(SNAPSHOT)))
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


def test_every_family_without_codes_is_present_from_the_start() -> None:
    first = {"state": "unavailable", "workers": [{"name": "0", "state": "starting"}]}
    families = parsed(metrics(read_snapshot(SNAPSHOT))).keys()
    by_code = {"asrd_jobs_failed_total", "asrd_jobs_refused_total"}
    assert parsed(metrics(read_snapshot(first))).keys() == families - by_code


def test_worker_states_are_those_of_the_scheduler() -> None:
    assert set(WORKER_STATES) == {state.value for state in WorkerState} | {"busy"}


def test_label_cannot_break_its_line() -> None:
    risky = {"state": "ok", "workers": [{"name": 'a"b\\c\nd\x1b'}]}
    (label,) = parsed(metrics(read_snapshot(risky)))["asrd_worker_restarts_total"]
    assert label == 'worker="a\\"b\\\\c\\\\nd\\\\x1b"'
