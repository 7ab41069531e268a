"""`asrctl restart-workers`, with a systemctl that is played; tests/systemd/ has the real one."""

import argparse
from pathlib import Path

import pytest

from asrd.asrctl.host import Host
from asrd.asrctl.rolling import restart_workers

UNITS = {"1": "failed", "0": "active", "2": "inactive"}


@pytest.mark.parametrize(("broken", "restarted"), [("-", ["0", "1"]), ("0", ["0"])])
def test_one_after_the_other_until_one_does_not_come_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, restarted: list[str]
) -> None:
    played = tmp_path / "systemctl"
    played.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n[ "$2" != asr-worker@{broken}.service ]\n'
    )
    played.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    units = {f"asr-worker@{name}.service": {"ActiveState": state} for name, state in UNITS.items()}
    monkeypatch.setattr(Host, "units", lambda *_: units)
    assert restart_workers(argparse.Namespace(socket=None)) == (broken != "-")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == [f"restart asr-worker@{name}.service" for name in restarted]


def test_without_workers_of_systemd(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Host, "units", lambda *_: {})
    assert restart_workers(argparse.Namespace(socket=None)) == 1
    assert capsys.readouterr().err == "asrctl: systemd runs no worker here\n"
