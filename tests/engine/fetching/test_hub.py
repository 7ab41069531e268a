"""`asrd fetch-model` against a hub on this machine, and the cache that it fills."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from asrd.demo import MODEL
from asrd.engine import fetch_model
from asrd.engine.fetching import hub
from asrd.engine.fetching.files import LARGEST
from asrd.engine.models import resolve
from asrd.errors import AsrdError
from asrd.model_table import OfficialModel
from tests.support.fake_daemon import PATIENCE
from tests.support.fetching import FILES, KEPT, NAMES, SHA256, fetch, names, python, refusal
from tests.support.hub import Hub, serve


def test_fetched_model_is_found_without_the_network(home: Path) -> None:
    with serve("some/model", FILES) as found:
        done = fetch("some/model", found.endpoint, HF_TOKEN="hf_secret")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.is_relative_to(home)
    assert names(path) == NAMES
    assert "model.bin, tokenizer.json" in done.stderr
    assert done.stderr.endswith(": verified by the hash from the hub\n")
    assert found.tokens == {"Bearer hf_secret"}
    again = python("from asrd.engine.models import resolve; print(resolve('some/model'))", "x")
    assert again.stdout.strip() == str(path), again.stderr


def test_fetched_model_is_checked(a_hub: Hub) -> None:
    a_hub.files = {name: path for name, path in FILES.items() if name != "model.bin"}
    assert "has no model.bin: a download or copy that was not finished" in refusal("some/model")
    with pytest.raises(AsrdError, match="is not on this machine"):
        resolve("some/model")


def test_missing_repository_and_offline_mode_are_named(home: Path) -> None:
    with serve("some/model", FILES) as found:
        done = fetch("some/other", found.endpoint)
        offline = fetch("some/model", found.endpoint, HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "asrd: the model 'some/other' could not be fetched: the hub has no repository some/other\n"
    )
    assert offline.returncode == 1
    assert "HF_HUB_OFFLINE" in offline.stderr


def test_proxy_is_used(home: Path) -> None:
    with serve("some/model", FILES) as proxy:
        done = fetch("some/model", "http://hub.test", http_proxy=proxy.endpoint, NO_PROXY="")
    assert done.returncode == 0, done.stderr
    assert proxy.hosts == {"hub.test"}


def test_silent_hub_ends_the_wait(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", silent)
        monkeypatch.setattr(hub, "_PATIENCE", 0.1)
        assert f"could not be fetched: {silent}: " in refusal("some/model")


@pytest.mark.parametrize("fault", ["break", "stall", 503])
def test_broken_download_is_resumed(a_hub: Hub, fault: str | int) -> None:
    a_hub.faults += [fault]
    path = fetch_model.fetch_model("some/model")
    assert (path / "model.bin").read_bytes() == FILES["model.bin"].read_bytes()
    parts = [wanted for name, wanted in a_hub.downloads if name == "model.bin"]
    assert parts == [None, None if fault == 503 else f"bytes={KEPT}-"]


@pytest.mark.parametrize(
    ("part", "fault", "tries"),
    [
        # The part is the beginning; the hub knows no ranges; the part is damaged.
        (FILES["model.bin"].read_bytes()[:1000], None, ["bytes=1000-"]),
        (FILES["model.bin"].read_bytes()[:1000], "whole", ["bytes=1000-"]),
        (b"x" * 1000, None, ["bytes=1000-", None]),
    ],
)
def test_interrupted_fetch_goes_on(
    a_hub: Hub, part: bytes, fault: str | None, tries: list[str | None], tmp_path: Path
) -> None:
    blobs = tmp_path / "cache" / "models--some--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{SHA256['model.bin']}.incomplete").write_bytes(part)
    a_hub.faults += [fault] if fault else []
    path = fetch_model.fetch_model("some/model")
    assert (path / "model.bin").read_bytes() == FILES["model.bin"].read_bytes()
    assert [wanted for name, wanted in a_hub.downloads if name == "model.bin"] == tries


def test_interrupted_process_leaves_its_part(home: Path) -> None:
    with serve("some/model", FILES) as found:
        found.faults += ["stall"]
        with subprocess.Popen(
            [sys.executable, "-m", "asrd.main", "fetch-model", "some/model"],
            env={**os.environ, "HF_ENDPOINT": found.endpoint, "HF_HUB_CACHE": str(home / "cache")},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            deadline = time.monotonic() + PATIENCE
            while not any(name == "model.bin" for name, _ in found.downloads):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            # It reads what has arrived when the interruption ends its wait.
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert said.endswith("asrd: interrupted; run the same command again to go on\n")
    assert list((home / "cache" / "models--some--model" / "blobs").glob("*.incomplete"))


def test_wrong_bytes_are_refused(a_hub: Hub, an_official: OfficialModel) -> None:
    a_hub.faults += ["wrong"]
    text = refusal("tiny")
    assert "model.bin from the hub is damaged or not the official one: its hash is " in text
    assert f"{SHA256['model.bin']} is expected" in text
    # The next attempt starts afresh.
    fetch_model.fetch_model("tiny")
    assert {wanted for _, wanted in a_hub.downloads} == {None}


@pytest.mark.usefixtures("an_official")
def test_damaged_file_in_the_cache_is_fetched_again(
    a_hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fetch_model.fetch_model("tiny")
    assert "verified by asrd's table" in capsys.readouterr().err
    with (path / "model.bin").open("r+b") as file:
        file.seek(100_000)
        file.write(b"\0" * 64)
    a_hub.downloads.clear()
    assert fetch_model.fetch_model("tiny") == path
    assert a_hub.downloads == [("model.bin", None)]
    assert "model.bin in the cache is damaged" in capsys.readouterr().err
    # Verified again, without a question to the hub.
    a_hub.hosts.clear()
    assert fetch_model.fetch_model("tiny") == path
    assert not a_hub.hosts
    assert (path / "model.bin").read_bytes() == FILES["model.bin"].read_bytes()


def test_hub_without_hashes_is_reported(a_hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    a_hub.bare = True
    assert names(fetch_model.fetch_model("some/model")) == NAMES
    assert "not verified: no hash is known" in capsys.readouterr().err


def test_model_that_is_here_is_kept_while_the_hub_cannot_be_reached(
    a_hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fetch_model.fetch_model("some/model")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert fetch_model.fetch_model("some/model") == path
    assert capsys.readouterr().err.endswith("; it is here, and unchanged since it was stored\n")
    (path / "config.json").write_text("{}")
    assert "could not be fetched: http://127.0.0.1:9: " in refusal("some/model")


@pytest.mark.parametrize("stated", [100, None])
def test_more_than_the_hub_states_is_refused(
    a_hub: Hub, stated: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    a_hub.bare = True
    told = hub.look_up("some/model", None)
    file = hub.RemoteFile("tokenizer.json", stated, None)
    monkeypatch.setitem(LARGEST, "tokenizer.json", 100)
    with pytest.raises(hub.HubError, match="part would be larger than 100 bytes"):
        hub.download(told, file, tmp_path / "part")
    assert not (tmp_path / "part").exists()


@pytest.mark.usefixtures("no_hub")
def test_other_users_cannot_hold_the_lock(tmp_path: Path) -> None:
    fetch_model.fetch_model("some/model", origin=MODEL)
    (lock,) = (tmp_path / "cache" / ".locks").rglob("asrd.lock")
    assert lock.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("an_official", "no_hub")
def test_cache_that_can_only_be_read_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch_model.fetch_model("tiny", origin=MODEL)
    shutil.rmtree(tmp_path / "cache" / ".locks")
    before = sorted((tmp_path / "cache").rglob("*"))
    times = [each.lstat().st_mtime_ns for each in before]
    # Permissions do not stop root, who runs the tests at some places.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert fetch_model.fetch_model("tiny") == path
    assert names(fetch_model.fetch_model("tiny", to=tmp_path / "new")) == {*NAMES, "SHA256SUMS"}
    assert sorted((tmp_path / "cache").rglob("*")) == before
    assert [each.lstat().st_mtime_ns for each in before] == times


def test_files_of_root_can_be_read_by_the_workers(a_hub: Hub) -> None:
    before = os.umask(0o077)
    try:
        path = fetch_model.fetch_model("some/model")
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    expected = 0o644 if os.geteuid() == 0 else 0o600
    assert (path / "model.bin").stat().st_mode & 0o777 == expected


def test_no_room_is_reported_before_the_download(
    a_hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    assert refusal("some/model").endswith(f"no space is left in {tmp_path / 'cache'}")
    assert not a_hub.downloads


def test_cache_that_cannot_be_written_is_reported(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "file"))
    assert refusal("some/model").endswith("Not a directory")


def test_missing_permission_gets_a_remedy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/cache")

    monkeypatch.setattr(Path, "mkdir", refuse)
    text = "/cache: Permission denied (use sudo, or set HF_HOME to another directory)"
    assert refusal("small").endswith(text)
