"""A missing part of CUDA is named; a library is loaded from its package's folder.

The driver and the GPU are faked; a real library takes the place of cuBLAS.
"""

import ctypes
import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from asrd.engine import cuda
from tests.support.subprocesses import run_python


class Driver:
    """A libcuda with the results of cuDriverGetVersion and cuInit."""

    def __init__(self, version: int, error: int) -> None:
        self.version = version
        self.error = error

    def cuDriverGetVersion(self, where: Any) -> int:  # noqa: N802
        ctypes.cast(where, ctypes.POINTER(ctypes.c_int))[0] = self.version
        return 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.error


class Loader:
    """Loads every library but those `missing`; keeps the names that it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *missing: str, driver: Any = None) -> None:
        self.missing = missing
        self.driver = driver
        self.asked: list[str] = []
        monkeypatch.setattr(cuda, "_load", self._load)

    def _load(self, name: str) -> object:
        self.asked.append(name)
        if Path(name).name in self.missing:
            raise OSError(f"{name}: cannot open shared object file")
        return self.driver if name == cuda.DRIVER else None


def test_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Loader(monkeypatch, "libcuda.so.1")
    reason = "no NVIDIA driver is installed (libcuda.so.1 can't be loaded)"
    assert cuda.why_not(0, 0) == reason


@pytest.mark.parametrize(
    ("version", "error", "visible", "text"),
    [
        (11_040, 0, None, "is too old: it supports CUDA 11.4, 12.8 (R570) is needed"),
        (12_080, 100, None, "shows no GPU to this process: there is none"),
        (13_000, 0, "", "shows no GPU to this process (CUDA_VISIBLE_DEVICES=''): there is none"),
        (13_000, 999, None, "can't be started (cuInit: error 999): nvidia_uvm is not loaded"),
    ],
)
def test_driver_without_a_gpu_says_why(
    monkeypatch: pytest.MonkeyPatch, version: int, error: int, visible: str | None, text: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    Loader(monkeypatch, driver=Driver(version, error))
    assert text in str(cuda.why_not(0, 0))


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024", "550.54.15"),
        (
            "NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build  (root)",
            "570.86.10",
        ),
        ("something else", "unknown"),
        (None, "unknown"),
    ],
)
def test_old_driver_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str | None, known: str
) -> None:
    monkeypatch.setattr(cuda, "VERSION_FILE", tmp_path / "version")
    if line is not None:
        (tmp_path / "version").write_text(f"NVRM version: {line}\nGCC version: gcc 12.2.0\n")
    Loader(monkeypatch, driver=Driver(12_040, 0))
    assert str(cuda.why_old()).startswith(f"the NVIDIA driver {known} supports only CUDA 12.4: ")
    for recent in (12_080, 13_000, 0):
        Loader(monkeypatch, driver=Driver(recent, 0))
        assert cuda.why_old() is None


def test_number_of_a_missing_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Loader(monkeypatch)
    # As in a worker's unit: the one GPU that it is given has the number 0.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1b")
    assert cuda.why_not(1, 1) == (
        "there is no GPU number 1, the driver shows 1 (CUDA_VISIBLE_DEVICES='MIG-1b')"
    )


@pytest.mark.parametrize("name", cuda.LIBRARIES)
def test_missing_cublas_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    Loader(monkeypatch, name)
    reason = str(cuda.why_not(0, 1))
    assert reason.startswith(f"{name} can't be loaded")
    assert "pip install 'asrd[cuda]'" in reason
    # A newer one does not help.
    place = tmp_path / "nvidia" / "cu13" / "lib"
    place.mkdir(parents=True)
    (place / "libcublas.so.13").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert str(cuda.why_not(0, 1)) == f"{reason} (libcublas.so.13 does not work)"


@pytest.mark.parametrize("directory", ["nvidia/cublas/lib", "ctranslate2.libs", None])
def test_libraries_are_loaded_from_the_folders_of_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str | None
) -> None:
    expected = list(cuda.LIBRARIES)
    if directory is not None:
        place = tmp_path / directory
        place.mkdir(parents=True)
        expected = [str(place / name) for name in cuda.LIBRARIES]
        for path in expected:
            Path(path).touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    loader = Loader(monkeypatch)
    assert cuda.why_not(1, 2) is None
    assert loader.asked == ["libcuda.so.1", *expected]


def test_loaded_library_is_found_by_its_name(tmp_path: Path) -> None:
    # As CTranslate2's dlopen("libcublas.so.12") will find it with any search path. A small library
    # of onnxruntime's plays cuBLAS, under the name it was linked with.
    package = importlib.util.find_spec("onnxruntime")
    assert package is not None and package.origin is not None
    library = Path(package.origin).parent / "capi" / "libonnxruntime_providers_shared.so"
    place = tmp_path / "nvidia" / "cublas" / "lib"
    place.mkdir(parents=True)
    shutil.copy(library, place / library.name)
    code = f"""
import ctypes, sys
from asrd.engine import cuda
cuda.DRIVER = "libc.so.6"
cuda.LIBRARIES = ({library.name!r},)
sys.path.append({str(tmp_path)!r})
try:
    ctypes.CDLL({library.name!r})
except OSError:
    print("not found")
print(cuda.why_not(0, 1))
ctypes.CDLL({library.name!r})
print(open("/proc/self/maps").read().count({str(place / library.name)!r}) > 0)
"""
    assert run_python(code).stdout.split("\n") == ["not found", "None", "True", ""]
