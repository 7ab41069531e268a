"""docs/home-assistant.md: its examples are run, and its facts are the code's. The commands for
systemd are run by tests/systemd/test_wyoming.py."""

import re
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree

from asrd.settings import FrontSettings, WorkerSettings
from tests.support.daemons import Front
from tests.support.paths import ROOT
from tests.support.raw import PATIENCE
from tests.support.wyoming_page import PAGE, block


def test_check_by_hand_is_answered(tmp_path: Path) -> None:
    with Front(tmp_path, config="wyoming = '127.0.0.1:0'") as front:
        port = front.log.split("served at 127.0.0.1:")[1].split(",")[0]
        script = block("sh", "/dev/tcp").replace("10300", port)
        done = subprocess.run(
            ["bash", "-ec", script], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
    assert done.stdout.startswith('{"type":"info"')
    assert '`{"type":"info"`' in PAGE


def test_settings_of_the_page_exist() -> None:
    for text in re.findall(r"(?<=\n\n)((?:    .*\n)+)", PAGE):
        if text.strip().startswith("["):
            for key in tomllib.loads(text)["front"]:
                assert key in FrontSettings.__dataclass_fields__
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE, re.MULTILINE))
    assert len(rows) == 4
    for key, value in rows.items():
        assert getattr(FrontSettings(), key) == float(value)
    known = FrontSettings.__dataclass_fields__.keys() | WorkerSettings.__dataclass_fields__.keys()
    named = set(re.findall(r"`(wyoming_\w+|\w+_max_\w+|\w+_seconds)\b", PAGE))
    assert named - known == set()


def test_port_is_the_units_and_avahis() -> None:
    unit = (ROOT / "systemd" / "asrd-wyoming.socket").read_text()
    assert "\nListenStream=127.0.0.1:10300\n" in unit
    avahi = ElementTree.parse(ROOT / "packaging" / "avahi" / "asrd.service").getroot()
    service = avahi.find("service")
    assert service is not None
    assert (service.findtext("type"), service.findtext("port")) == ("_wyoming._tcp", "10300")


def test_figures_are_those_of_the_performance_page() -> None:
    figures = (ROOT / "docs" / "performance.md").read_text()
    for text in ("| 109 ms | 0.32", "| 265 ms | 0.33", "| 9.3 | 1.00", "| 4.8 | 1.00"):
        assert text in figures
