"""docs/scaling.md: its settings exist, its bounds fit together, and its calculation is right. The
rest is shown by tests/hosts."""

import re
import tomllib

import pytest

from asrd.settings import FrontSettings, HttpSettings
from tests.support.paths import ROOT
from tests.support.wyoming_page import block

PAGE = (ROOT / "docs" / "scaling.md").read_text()
EXAMPLE = (ROOT / "packaging" / "examples" / "haproxy.cfg").read_text()
ROWS = dict(re.findall(r"^\| (.+?) \| (.+) \|$", PAGE, re.MULTILINE))


def preset(name: str) -> int:
    """The value of a name of the example."""
    (found,) = re.findall(rf"^ +presetenv {name} (\d+)$", EXAMPLE, re.MULTILINE)
    return int(found)


def row(name: str) -> list[float]:
    """The numbers of a row of the calculation."""
    return [float(re.sub(r"[^\d.]", "", cell)) for cell in ROWS[name].split("|")]


def test_settings_of_the_hosts_exist() -> None:
    tables = tomllib.loads(block("toml", "[front]", PAGE))
    assert tables["front"].keys() <= FrontSettings.__dataclass_fields__.keys()
    assert tables["http"].keys() <= HttpSettings.__dataclass_fields__.keys()


def test_hosts_take_all_that_haproxy_gives_them() -> None:
    """HAProxy is one user and one address for asrd."""
    tables = tomllib.loads(block("toml", "[front]", PAGE))
    front, http = FrontSettings(**tables["front"]), HttpSettings(**tables["http"])
    requests, speakers = preset("ASRD_HTTP_MAXCONN"), preset("ASRD_WYOMING_MAXCONN")
    assert requests + speakers < front.queue_max
    assert requests <= http.requests_max // 2
    assert requests * http.max_upload_bytes <= http.uploads_max_bytes // 2
    # One connection more for the check.
    assert speakers + 1 <= front.wyoming_connections_max_per_address
    # 20 minutes of 16-bit audio at 16 kHz.
    assert speakers * 20 * 60 * 32_000 <= front.spool_max_bytes_per_user
    shown = {
        "queue_max": f"{front.queue_max}",
        "queue_max_per_user": f"{front.queue_max_per_user}",
        "requests_max": f"{http.requests_max}",
        "uploads_max_bytes": f"{http.uploads_max_bytes >> 30} GiB",
        "wyoming_connections_max_per_address": f"{front.wyoming_connections_max_per_address}",
        "spool_max_bytes_per_user": f"{front.spool_max_bytes_per_user >> 30} GiB",
        "max_wait_seconds": f"{front.max_wait_seconds}",
    }
    for name, value in shown.items():
        assert ROWS[f"`{name}`"].startswith(f"{value} | "), name
    assert f"`ASRD_HTTP_MAXCONN` ({requests}) and `ASRD_WYOMING_MAXCONN` ({speakers})" in PAGE
    assert f"has {preset('ASRD_USER_MAXCONN')} requests at once" in PAGE
    # HAProxy notices that a host drains while that still serves.
    assert http.drain_seconds == 5 and f"`drain_seconds` ({http.drain_seconds:g})" in PAGE


def test_figures_are_those_of_the_performance_page() -> None:
    figures = (ROOT / "docs" / "performance.md").read_text()
    assert "1, 2, 4 workers | 98, 145, 176 | 82 |" in figures
    assert "| a recording of 300 s, seconds of audio per second | 64 | 77 |" in figures
    assert "| memory of the card | 823 MiB | |" in figures


def test_calculation_is_right() -> None:
    gpus = [10, 100, 1000]
    commands = row("commands per second, planned")
    assert row("GPUs") == gpus
    assert row("hosts") == [-(-count // 8) for count in gpus]
    assert row("workers") == [4 * count for count in gpus]
    assert commands == pytest.approx([176 / 5 / 2 * count for count in gpus])
    hours = row("or hours of long recordings per day, planned")
    assert hours == [64 * 24 / 2 * count for count in gpus]
    cores = [rate * 0.7e-3 for rate in commands]
    assert row("cores for HAProxy") == pytest.approx(cores, abs=0.05)
    traffic = [rate * 160_000 * 8 / 1e9 for rate in commands]
    found = row("into HAProxy, and out of it, as PCM")
    assert found == pytest.approx(traffic, abs=0.05)
    lost = [100 / hosts for hosts in row("hosts")]
    assert row("capacity that is lost with one host") == pytest.approx(lost, abs=0.5)


def test_consumer_that_waits_for_a_worker_is_not_taken_for_dead() -> None:
    consumer = (ROOT / "packaging" / "examples" / "redis_consumer.py").read_text()
    (dead_ms,) = re.findall(r"^DEAD_MS = ([\d_]+)$", consumer, re.MULTILINE)
    front = tomllib.loads(block("toml", "[front]", PAGE))["front"]
    assert int(dead_ms) > 1000 * (front["max_wait_seconds"] + 60)
