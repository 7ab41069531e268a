"""The doctor's view of the machine."""

from pathlib import Path

import pytest

from asrd.asrctl.host import Host

SHOWN = """\
#!/bin/sh
printf 'Id=asrd.socket\\nLoadState=loaded\\nListen=/a (Stream)\\nListen=/b (Stream)\\n\\n'
printf 'Id=asr-worker@gpu1.socket\\nLoadState=loaded\\n'
"""


def test_units_are_those_that_systemctl_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl = tmp_path / "systemctl"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("ASRD_CONFIG", str(tmp_path / "asrd.toml"))
    (tmp_path / "worker-small.toml").touch()
    # A copy of an editor, which is no worker's.
    (tmp_path / "worker-small (1).toml").touch()
    systemctl.write_text(SHOWN)
    systemctl.chmod(0o755)
    assert Host().units("*")["asrd.socket"] == {
        "Id": "asrd.socket",
        "LoadState": "loaded",
        "Listen": "/a (Stream)\n/b (Stream)",
    }
    assert Host().is_installed()
    systemctl.write_text("#!/bin/sh\nexit 1\n")
    assert Host().units("*") == {}
    assert Host().worker_names() == ["small"]


def test_systemctl_of_the_working_directory_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "systemctl").write_text("#!/bin/sh\ntouch ran\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", ".")
    assert Host().units("asrd.socket") == {}
    assert not (tmp_path / "ran").exists()


def test_user_and_group_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 4_242_424)
    host = Host()
    assert host.user() == "user 4242424"
    assert not host.member_of("asrd-no-such-group")
    assert not host.in_group("asrd-no-such-group")
