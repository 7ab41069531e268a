"""Models on a machine without a network: added from a directory, and from a Debian package."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asrd.demo import MODEL, SPEECH
from tests.support.paths import ROOT
from tests.support.real import speaker_models
from tests.support.real.weights import Missing
from tests.support.systemd.service import INSIDER, SAMPLE, TEXT, Service, install

pytestmark = pytest.mark.package


@contextmanager
def model_of_worker(service: Service, name: str) -> Iterator[None]:
    with service.settings("worker-0.toml", f'model = "{name}"\n'):
        service.until_worker("ready")
        yield


def test_added_model_is_found_by_its_name(service: Service) -> None:
    machine = service.machine
    # As from a stick that only root can read.
    stick = machine.root / "root" / "words"
    shutil.copytree(MODEL, stick)
    for path in stick.iterdir():
        path.chmod(0o600)
    stick.chmod(0o700)
    added = machine.run("sh", "-c", "umask 077; exec asrd add-model /root/words")
    assert added.stdout == "/var/lib/asrd/models/words\n"
    for model in ("words", "/var/lib/asrd/models/words"):
        with model_of_worker(service, model):
            assert service.transcribe() == TEXT
            # Clients see and use its short name.
            assert service.worker()["model"] == "words"
            asked = ["asrctl", "transcribe", "--model", "words", SAMPLE]
            assert machine.output(*asked, user=INSIDER) == TEXT
    shutil.rmtree(machine.root / "var/lib/asrd/models/words")
    shutil.rmtree(stick)


def test_package_of_a_model_brings_it_and_takes_it_away(service: Service, tmp_path: Path) -> None:
    asrd = tmp_path / "asrd"
    asrd.write_text(f'#!/bin/sh\nexec {sys.executable} -m asrd.main "$@"\n')
    asrd.chmod(0o755)
    argv = [str(ROOT / "packaging" / "build-model-deb"), str(MODEL), "Words_2", str(tmp_path)]
    environment = os.environ | {"ASRD": str(asrd), "VERSION": "1.2", "PYTHONPATH": str(ROOT)}
    subprocess.run(argv, check=True, env=environment, capture_output=True)
    machine, deb = service.machine, "asrd-model-words-2_1.2_all.deb"
    shutil.copy(tmp_path / deb, machine.root / "srv" / deb)
    install(machine, Path("/srv", deb))
    with model_of_worker(service, "Words_2"):
        assert service.transcribe() == TEXT
        assert service.worker()["model"] == "Words_2"
    machine.run("apt-get", "--yes", "--quiet", "purge", "asrd-model-words-2")
    assert not (machine.root / "usr/share/asrd/models").exists()
    (machine.root / "srv" / deb).unlink()


def test_worker_for_speakers_is_set_up_as_documented(service: Service) -> None:
    """The commands of docs/speakers.md."""
    try:
        models = speaker_models.directory()
    except Missing as error:
        pytest.fail(f"models of speakers: {error}", pytrace=False)
    machine = service.machine
    shutil.copytree(models, machine.root / "root" / "speakers")
    shutil.copy(SPEECH, machine.root / "srv" / SPEECH.name)
    machine.run("asrd", "add-model", "/root/speakers")
    machine.write("/etc/asrd/worker-speakers.toml", 'model = "speakers"\n')
    service.systemctl("enable", "--now", "asr-worker@speakers.socket")
    try:
        service.until_worker("ready", "speakers")
        asked = ["asrctl", "transcribe", "--speakers", f"/srv/{SPEECH.name}"]
        lines = machine.output(*asked, user=INSIDER).splitlines()
        assert lines and all(line.startswith("[speaker 1] ") for line in lines)
        # Text stays with the worker for text.
        assert service.transcribe() == TEXT
        assert service.status()["state"] == "ok"
        assert machine.run("asrctl", "doctor").returncode == 0
    finally:
        service.systemctl("disable", "--now", "asr-worker@speakers.socket")
        machine.run("rm", "-r", "/etc/asrd/worker-speakers.toml", "/var/lib/asrd/models/speakers")
        machine.run("rm", "-r", "/root/speakers", f"/srv/{SPEECH.name}")
