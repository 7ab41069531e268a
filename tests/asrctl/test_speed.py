"""The doctor's advice on speed, from what workers report."""

from pathlib import Path
from typing import Any

import pytest

from asrd.asrctl.finding import Finding, Verdict
from asrd.asrctl.host import Host
from asrd.asrctl.speed import speed
from asrd.errors import ConnectionLost
from asrd.snapshot import Snapshot, read_snapshot

GOOD = {"device": "cpu", "compute_type": "int8", "cpu_threads": 2, "cores": 4}
RESTART = "sudo systemctl restart asr-workers.target"


class FakeHost(Host):
    """A host with two workers, which share four cores."""

    def __init__(self, tmp_path: Path) -> None:
        self.config = tmp_path / "asrd.toml"
        self.installed = True
        self.workers: list[dict[str, Any]] | None = [{"name": "0", **GOOD}, {"name": "1", **GOOD}]

    def is_installed(self) -> bool:
        return self.installed

    def status(self) -> Snapshot:
        if self.workers is None:
            raise ConnectionLost("there is no daemon")
        return read_snapshot({"state": "ok", "workers": self.workers})


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def advice(host: FakeHost, **changes: Any) -> list[Finding]:
    """The findings on worker 0 with these changes."""
    assert host.workers is not None
    host.workers[0] |= changes
    found = list(speed(host))
    assert all(each.verdict is Verdict.OK for each in found)
    return [each for each in found if each.text.startswith("worker 0 ")]


def test_good_settings_get_the_facts_and_no_advice(host: FakeHost) -> None:
    (found,) = advice(host)
    assert "in int8, threads: 2, cores: 4; `asrd bench`" in found.text
    assert found.fix is None


def test_float32_takes_twice_the_time(host: FakeHost) -> None:
    (found,) = advice(host, compute_type="float32")
    assert "int8 makes as few errors in about half the time (`asrd bench`" in found.text
    assert found.fix == f"sudoedit {host.config}"
    own = host.config.with_name("worker-0.toml")
    own.touch()
    assert advice(host)[0].fix == f"sudoedit {own}"
    host.installed = False
    assert advice(host)[0].fix == "asrd run --compute-type int8"


def test_speakers_are_told_apart_in_float32(host: FakeHost) -> None:
    (found,) = advice(host, compute_type="float32", speakers=True)
    assert found.fix is None


@pytest.mark.parametrize(
    ("threads", "text"),
    [(4, "about half as many requests as without competing"), (1, "two thirds of the time")],
)
def test_threads_that_are_not_the_share_of_the_cores(
    host: FakeHost, threads: int, text: str
) -> None:
    """A worker counts again when it starts, unless the settings say how many."""
    (found,) = advice(host, cpu_threads=threads)
    assert f"takes {threads} threads, and its share of 4 cores is 2" in found.text
    assert text in found.text
    assert found.fix == RESTART
    assert found.text.endswith("unless OMP_NUM_THREADS is set")
    host.config.write_text(f"[worker]\ncpu_threads = {threads}\n")
    (found,) = advice(host)
    assert (found.fix, "OMP" in found.text) == (f"sudoedit {host.config}", False)
    host.installed = False
    assert advice(host)[0].fix == "asrd run --threads 2"


def test_more_threads_than_the_default_are_no_competition_on_many_cores(host: FakeHost) -> None:
    """`asrd bench` may have found them."""
    (found,) = advice(host, cpu_threads=8, cores=16)
    assert "threads: 8, cores: 16" in found.text and found.fix is None
    (found,) = advice(host, cpu_threads=9, cores=16)
    assert "takes 9 threads, and its share of 16 cores is 8" in found.text


def test_spare_takes_no_share(host: FakeHost) -> None:
    assert host.workers is not None
    host.workers[1]["spare"] = True
    (found,) = advice(host)
    assert "its share of 4 cores is 4" in found.text


@pytest.mark.parametrize(
    "unknown", [{"device": "cuda", "cpu_threads": None}, {"device": None}, {"cores": None}]
)
def test_nothing_is_said_without_facts(host: FakeHost, unknown: dict[str, Any]) -> None:
    assert advice(host, **unknown) == []


def test_daemon_that_does_not_answer_is_left_to_another_check(host: FakeHost) -> None:
    host.workers = None
    assert list(speed(host)) == []
