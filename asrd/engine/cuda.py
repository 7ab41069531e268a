"""What CTranslate2 needs on a GPU, found before it needs it.

The ctranslate2 wheel links no CUDA library: it opens cuBLAS by name at its first multiplication
and fails there if the loader does not find it. A library that is already in the process is found in
any case, so it is loaded here: from pip's NVIDIA packages, from beside ctranslate2 (where
the Debian package puts it), or wherever the loader looks.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

DRIVER = "libcuda.so.1"
# cuBLAS needs the other; loaded first, it is found without a search path.
LIBRARIES = ("libcublasLt.so.12", "libcublas.so.12")
_OTHER_CUBLAS = "libcublas.so.13"
# As the driver counts: 1000 times the major version and 10 times the minor one.
_CUDA_12 = 12_000
_NO_DEVICE = 100

Loader = Callable[[str], Any]


def why_not(index: int, count_devices: Callable[[], int], load: Loader | None = None) -> str | None:
    """Why GPU number `index` can't be used, in one sentence; None if it can.

    `count_devices` is ctranslate2's. On success cuBLAS stays loaded.
    """
    load = load or _load_for_all
    try:
        driver = load(DRIVER)
    except OSError:
        return f"no NVIDIA driver is installed ({DRIVER} can't be loaded)"
    count = count_devices()
    if count == 0:
        return _why_none(driver)
    if index >= count:
        return f"there is no GPU number {index}, the driver shows {count}{_visible()}"
    return _load_libraries(load, sys.path)


def _why_none(driver: Any) -> str:
    """The driver's own word on why the CUDA runtime counts no GPU."""
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    if 0 < version.value < _CUDA_12:
        known = f"{version.value // 1000}.{version.value % 1000 // 10}"
        return f"the NVIDIA driver is too old: it knows CUDA {known}, and 12.8 (R570) is wanted"
    error = driver.cuInit(0)
    if error in (0, _NO_DEVICE):
        return (
            f"the NVIDIA driver shows no GPU to this process{_visible()}: none is there, or a "
            "sandbox closes /dev/nvidia* to it"
        )
    return (
        f"the NVIDIA driver can't be started (cuInit: error {error}): nvidia_uvm is not loaded, "
        "/dev/nvidia* is closed to this process, or the driver was changed since the last boot"
    )


def _visible() -> str:
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if chosen is None else f" (CUDA_VISIBLE_DEVICES={chosen!r})"


def _load_libraries(load: Loader, path: Iterable[str]) -> str | None:
    directories = list(_directories(path))
    for name in LIBRARIES:
        try:
            load(_locate(name, directories))
        except OSError as error:
            newer = any((directory / _OTHER_CUBLAS).exists() for directory in directories)
            return (
                f"{name} can't be loaded ({error}); `pip install 'asrd[cuda]'` or your "
                "distribution's CUDA 12 packages bring it"
                + (f", {_OTHER_CUBLAS} does not do" if newer else "")
            )
    return None


def _locate(name: str, directories: Iterable[Path]) -> str:
    for directory in directories:
        if (directory / name).exists():
            return str(directory / name)
    return name


def _directories(path: Iterable[str]) -> Iterator[Path]:
    for entry in path:
        yield from sorted(Path(entry).glob("nvidia/*/lib"))
        yield Path(entry) / "ctranslate2.libs"


def _load_for_all(name: str) -> object:
    return ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
