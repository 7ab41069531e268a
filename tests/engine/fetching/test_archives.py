"""Directories and archives that a model is taken from: none of them is trusted."""

import gzip
import io
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from asrd.demo import MODEL
from asrd.engine.fetching import archives
from asrd.engine.fetching.archives import unpack
from asrd.engine.fetching.files import LARGEST
from asrd.errors import AsrdError

NAMES = {path.name for path in MODEL.iterdir()}


@pytest.fixture
def into(tmp_path: Path) -> Path:
    directory = tmp_path / "into"
    directory.mkdir()
    return directory


def tar(path: Path, *members: tuple[str, bytes], **changes: object) -> Path:
    """Writes an archive; `changes` are made to each member."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, body in members:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(body))
    return path


def test_header_is_bounded_also_when_it_is_read_in_pieces() -> None:
    bounded = archives._Bounded(io.BytesIO(bytes(30)), 10)
    assert len(bounded.read(8)) == 8
    with pytest.raises(AsrdError, match="too large"):
        bounded.read(8)
    bounded.seek(8)
    assert len(bounded.read(8)) == 8


def refusal(origin: Path, into: Path) -> str:
    with pytest.raises(AsrdError) as caught:
        unpack(origin, into)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["directory", "model.tar", "model.tar.gz", "model.zip"])
def test_model_is_found_wherever_it_is_in_an_archive(kind: str, tmp_path: Path, into: Path) -> None:
    origin = MODEL if kind == "directory" else tmp_path / kind
    files = [(f"a/b/{path.name}", path.read_bytes()) for path in MODEL.iterdir()]
    files += [("a/README.md", b"of no interest"), ("setup.py", b"raise SystemExit")]
    # More than a megabyte of headers.
    files += [(f"empty/{number}", b"") for number in range(2_100)]
    if ".tar" in kind:
        tar(origin, *files)
    elif kind == "model.zip":
        with zipfile.ZipFile(origin, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, body in files:
                archive.writestr(name, body)
    unpack(origin, into)
    assert {path.name for path in into.iterdir()} == NAMES
    assert all((into / name).read_bytes() == (MODEL / name).read_bytes() for name in NAMES)


def test_paths_of_an_archive_are_not_used(tmp_path: Path, into: Path) -> None:
    outside = tmp_path / "model.bin"
    unpack(tar(tmp_path / "a.tar", ("../model.bin", b"1"), (f"{tmp_path}/config.json", b"2")), into)
    assert not outside.exists()
    assert {path.name: path.read_bytes() for path in into.iterdir()} == {
        "model.bin": b"1",
        "config.json": b"2",
    }


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(kind: bytes, tmp_path: Path, into: Path) -> None:
    origin = tar(tmp_path / "a.tar", ("model.bin", b""), type=kind, linkname="/etc/passwd")
    assert refusal(origin, into) == f"{origin}: its model.bin is no regular file"
    assert not any(into.iterdir())


def huge_header(path: Path) -> None:
    tar(path, ("model.bin", b"x"), pax_headers={"comment": "x" * (archives._READ_MAX + 1)})


def far_away(path: Path) -> None:
    with gzip.open(path, "wb") as file:
        info = tarfile.TarInfo("x")
        info.size = archives._BYTES_MAX + 1
        file.write(info.tobuf())


def large_in_tar(path: Path) -> None:
    tar(path, ("config.json", bytes(LARGEST["config.json"] + 1)))


def large_in_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(LARGEST["config.json"] + 1))


def endless_in_zip(path: Path, packing: int) -> None:
    """A few kilobytes that take all memory: Python unpacks them at once."""
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("model.bin", bytes(1 << 20))


def lzma_in_zip(path: Path) -> None:
    endless_in_zip(path, zipfile.ZIP_LZMA)


def bzip2_in_zip(path: Path) -> None:
    endless_in_zip(path, zipfile.ZIP_BZIP2)


def large_directory(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(3 + archives._DIRECTORY_MAX // 65_000):
            archive.writestr(f"{number}" + "x" * 65_000, b"")


def no_number(path: Path) -> None:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "many"}
    tar(path, ("model.bin", b"x"), pax_headers=headers)


def twice_in_tar(path: Path) -> None:
    tar(path, ("a/model.bin", b"1"), ("b/model.bin", b"2"))


def twice_in_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/model.bin", b"1")
        archive.writestr("b/model.bin", b"2")


def cut_off(path: Path) -> None:
    tar(path, ("model.bin", random.Random(1).randbytes(100_000)))
    os.truncate(path, 50_000)


def noise(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(5000))


def damaged_zip(path: Path) -> None:
    twice_in_zip(path)
    data = bytearray(path.read_bytes())
    # Not any first "1": the header holds the time.
    data[data.index(b"model.bin1") + 9] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (huge_header, "it is too large for a model"),
        (far_away, "it is too large for a model"),
        (large_in_tar, "its config.json is larger than 1,048,576 bytes"),
        (large_in_zip, "its config.json is larger than 1,048,576 bytes"),
        (lzma_in_zip, "its model.bin is packed in another way than deflate"),
        (bzip2_in_zip, "its model.bin is packed in another way than deflate"),
        (large_directory, "it is too large for a model"),
        (no_number, "is no complete tar, tar.gz or zip file"),
        (twice_in_tar, "it holds more than one model.bin"),
        (twice_in_zip, "it holds more than one model.bin"),
        (cut_off, "is no complete tar, tar.gz or zip file"),
        (noise, "is no complete tar, tar.gz or zip file"),
        (damaged_zip, "is no complete tar, tar.gz or zip file"),
    ],
)
def test_archive_that_is_no_model_is_refused(
    make: Callable[[Path], None], text: str, tmp_path: Path, into: Path
) -> None:
    origin = tmp_path / ("a.tar.gz" if make is cut_off else "a.tar")
    make(origin)
    assert text in refusal(origin, into)


def test_number_of_members_is_bounded(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_MEMBERS_MAX", 3)
    origin = tar(tmp_path / "a.tar", *((f"{number}", b"") for number in range(4)))
    assert refusal(origin, into).endswith("it holds too many files")


def test_special_files_in_a_directory_are_refused(tmp_path: Path, into: Path) -> None:
    origin = tmp_path / "model"
    origin.mkdir()
    (origin / "config.json").symlink_to("/etc/passwd")
    assert "config.json is a link: `cp -rL " in refusal(origin, into)
    (origin / "config.json").unlink()
    os.mkfifo(origin / "config.json")
    assert refusal(origin, into).endswith("config.json is no regular file")
    assert refusal(origin / "config.json", into).endswith("is neither a directory nor a file")
    (origin / "config.json").unlink()
    (origin / "config.json").mkdir()
    assert refusal(origin, into).endswith("config.json is no regular file")
    assert not any(into.iterdir())


def test_parts_are_joined_in_the_order_of_their_numbers(tmp_path: Path, into: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(12):
            archive.writestr(f"model.bin.part{number}", f"{number} ")
    unpack(tmp_path / "a.zip", into)
    assert (into / "model.bin").read_text().split() == [str(number) for number in range(12)]
