"""What is missing for CUDA is named; a library that is there is loaded where it lies.

The driver and the GPU are pretended; that cuBLAS is really in the process is not.
"""

import ctypes
import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asrd.engine import cuda
from tests.support.subprocesses import run_python


class Driver:
    """libcuda: what cuDriverGetVersion and cuInit say."""

    def __init__(self, version: int, error: int) -> None:
        self.version = version
        self.error = error

    def cuDriverGetVersion(self, where: Any) -> int:  # noqa: N802
        ctypes.cast(where, ctypes.POINTER(ctypes.c_int))[0] = self.version
        return 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.error


class Loader:
    """Loads what it was told exists; keeps what it was asked for."""

    def __init__(self, *missing: str, driver: Driver | None = None) -> None:
        self.missing = missing
        self.driver = driver
        self.asked: list[str] = []

    def __call__(self, name: str) -> object:
        self.asked.append(name)
        if Path(name).name in self.missing:
            raise OSError(f"{name}: cannot open shared object file")
        return self.driver if name == cuda.DRIVER else None


def devices(count: int) -> Callable[[], int]:
    return lambda: count


def test_all_there() -> None:
    loader = Loader()
    assert cuda.why_not(1, devices(2), loader) is None
    assert loader.asked == ["libcuda.so.1", "libcublasLt.so.12", "libcublas.so.12"]


def test_no_driver() -> None:
    reason = cuda.why_not(0, devices(0), Loader("libcuda.so.1"))
    assert reason == "no NVIDIA driver is installed (libcuda.so.1 can't be loaded)"


@pytest.mark.parametrize(
    ("version", "error", "visible", "said"),
    [
        (11_040, 0, None, "is too old: it knows CUDA 11.4, and 12.8 (R570) is wanted"),
        (12_080, 100, None, "shows no GPU to this process: none is there"),
        (12_080, 100, "", "shows no GPU to this process (CUDA_VISIBLE_DEVICES=''): none is"),
        (13_000, 0, "1", "shows no GPU to this process (CUDA_VISIBLE_DEVICES='1'): none is"),
        (13_000, 999, None, "can't be started (cuInit: error 999): nvidia_uvm is not loaded"),
        (12_080, 803, None, "can't be started (cuInit: error 803)"),
    ],
)
def test_no_gpu(
    monkeypatch: pytest.MonkeyPatch, version: int, error: int, visible: str | None, said: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert said in str(cuda.why_not(0, devices(0), Loader(driver=Driver(version, error))))


def test_no_such_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cuda.why_not(2, devices(2), Loader()) == "there is no GPU number 2, the driver shows 2"
    # As in a worker's unit: the one GPU that it is given has the number 0.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1b")
    assert "shows 1 (CUDA_VISIBLE_DEVICES='MIG-1b')" in str(cuda.why_not(1, devices(1), Loader()))


@pytest.mark.parametrize("name", ["libcublas.so.12", "libcublasLt.so.12"])
def test_no_cublas(name: str) -> None:
    reason = str(cuda.why_not(0, devices(1), Loader(name)))
    assert reason.startswith(f"{name} can't be loaded")
    assert "pip install 'asrd[cuda]'" in reason


def test_the_next_cublas_alone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "nvidia" / "cu13" / "lib"
    place.mkdir(parents=True)
    (place / "libcublas.so.13").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    reason = str(cuda.why_not(0, devices(1), Loader("libcublasLt.so.12")))
    assert reason.endswith("packages bring it, libcublas.so.13 does not do")


@pytest.mark.parametrize("directory", ["nvidia/cublas/lib", "nvidia/cu12/lib", "ctranslate2.libs"])
def test_libraries_are_taken_from_where_packages_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str
) -> None:
    place = tmp_path / directory
    place.mkdir(parents=True)
    for name in cuda.LIBRARIES:
        (place / name).touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    loader = Loader()
    assert cuda.why_not(0, devices(1), loader) is None
    assert loader.asked == ["libcuda.so.1", *(str(place / name) for name in cuda.LIBRARIES)]


def test_a_library_that_was_loaded_is_found_by_its_name(tmp_path: Path) -> None:
    # As CTranslate2's dlopen("libcublas.so.12") will find it, whatever the search path says. No
    # cuBLAS here: a small library of onnxruntime's plays it, under the name it was linked with.
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
print(cuda.why_not(0, lambda: 1))
ctypes.CDLL({library.name!r})
print(open("/proc/self/maps").read().count({str(place / library.name)!r}) > 0)
"""
    assert run_python(code).stdout.split("\n") == ["not found", "None", "True", ""]
