"""Home Assistant's own entity for speech to text, unchanged, speaks with asrd over TCP.

Home Assistant wants a Python of its own (3.13), with the packages that its `wyoming` integration
imports; the versions of the last line are those of its package_constraints.txt:

    python3.13 -m venv DIR
    DIR/bin/pip install --ignore-requires-python homeassistant==2026.2.3 wyoming==1.7.2
    DIR/bin/pip install hassil==3.5.0 home-assistant-intents==2026.1.28 pymicro-vad==1.0.1 \
        pyspeex-noise==1.0.2 mutagen==1.47.0 ha-ffmpeg==3.2.2 av==16.0.1
    ASRD_TEST_HOME_ASSISTANT=DIR/bin/python pytest -m real tests/real/test_home_assistant.py
"""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemons import Daemon
from tests.support.paths import ROOT
from tests.support.raw import wait_for
from tests.support.real.speech import Clip

pytestmark = pytest.mark.real

PYTHON = os.environ.get("ASRD_TEST_HOME_ASSISTANT")
SCRIPT = ROOT / "tests" / "support" / "real" / "home_assistant.py"
# A dozen satellites, which is more than one user's share of the queue by default.
SATELLITES = ("spk1_snt1.wav", "spk1_snt2.wav", "spk1_snt3.wav") * 4
CONFIG = "[front]\nqueue_max_per_user = 16\n[worker]\ncpu_threads = 1\n"


@pytest.mark.skipif(
    PYTHON is None, reason="ASRD_TEST_HOME_ASSISTANT names no Python that has Home Assistant"
)
def test_home_assistant_hears_a_dozen_satellites_at_once(
    tmp_path: Path, model_path: Callable[[str], Path], clips: dict[str, Clip]
) -> None:
    """It is set up before the model is loaded, since it asks for the languages only once."""
    arguments = ("--wyoming", "127.0.0.1:0", "--model", str(model_path("tiny.en")))
    with Daemon(tmp_path, *arguments, config=CONFIG) as daemon:
        found = wait_for(
            "the door", lambda: re.search(r"who reaches 127\.0\.0\.1:(\d+) may", daemon.log)
        )
        paths = [str(clips[name].path) for name in SATELLITES]
        assert PYTHON is not None
        spoken = subprocess.run(
            [PYTHON, str(SCRIPT), found[1], *paths], capture_output=True, text=True, check=False
        )
        assert spoken.returncode == 0, spoken.stderr
        heard = json.loads(spoken.stdout.splitlines()[-1])
        assert (heard["name"], heard["platforms"]) == ("asrd", ["stt"])
        assert heard["languages"] == ["en"]
        for name, (result, text) in zip(SATELLITES, heard["results"], strict=True):
            assert result == "success"
            assert re.sub(r"[^a-z ]", "", text.lower()) == clips[name].text
