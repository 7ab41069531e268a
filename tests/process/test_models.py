"""Two workers with different models: the one that a request gets, on an idle and a busy machine."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asrd import Client
from asrd.demo import MODEL, SAMPLES
from tests.support.daemons import Daemon
from tests.support.raw import TEXTS

CLIP = "en-0.wav"


@pytest.mark.parametrize(("default", "chosen"), [("", "demo"), ("words", "words")])
def test_requests_without_a_name_get_one_model_also_all_at_once(
    tmp_path: Path, default: str, chosen: str
) -> None:
    shutil.copytree(MODEL, tmp_path / "models" / "words")
    (tmp_path / "worker-1.toml").write_text(f'model = "{tmp_path}/models/words"\n')
    config = f'[front]\ndefault_model = "{default}"\n[worker]\ncpu_threads = 1\n'
    shell = f"export ASRD_MODELS='{tmp_path}/models'"
    with Daemon(tmp_path, "--workers", "2", config=config, shell=shell) as daemon:
        daemon.wait_until_ready("0", "1")
        # The directory of an added model is called by its name.
        assert {worker["model"] for worker in daemon.workers().values()} == {"demo", "words"}
        with Client(daemon.socket) as client, ThreadPoolExecutor(6) as threads:

            def transcribe(name: str | None) -> tuple[str, str | None]:
                transcript = client.transcribe(SAMPLES / CLIP, model=name)
                return transcript.text, transcript.model

            alone = transcribe(None)
            together = list(threads.map(transcribe, [None] * 6))
            assert {alone, *together} == {(TEXTS[CLIP], chosen)}
            for name in ("demo", "words"):
                assert transcribe(name) == (TEXTS[CLIP], name)
