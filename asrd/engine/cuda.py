"""The check of CTranslate2's needs on a GPU, before CTranslate2 fails for lack of one.

The ctranslate2 wheel links no CUDA library: it opens cuBLAS by name at its first multiplication,
and fails there if the loader does not find it. A library that is already in the process is always
found. So cuBLAS is loaded here: from pip's NVIDIA packages, from the folder that the Debian package
puts next to ctranslate2, or from the loader's search path.
"""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

DRIVER = "libcuda.so.1"
# cuBLAS needs cuBLASLt, and finds it without a search path once it is loaded.
LIBRARIES = ("libcublasLt.so.12", "libcublas.so.12")
_OTHER_CUBLAS = "libcublas.so.13"
# In the driver's numbering: 1000 times the major version and 10 times the minor one.
_CUDA_12 = 12_000
_NO_DEVICE = 100


def why_not(index: int, count: int) -> str | None:
    """Returns why GPU number `index` can't be used, in one sentence; None if it can be.

    `count` is the number of GPUs that CTranslate2 sees. On success cuBLAS stays loaded.
    """
    try:
        driver = _load(DRIVER)
    except OSError:
        return f"no NVIDIA driver is installed ({DRIVER} can't be loaded)"
    if count == 0:
        return _why_none(driver)
    if index >= count:
        return f"there is no GPU number {index}, the driver shows {count}{_visible()}"
    return _load_cublas()


def _why_none(driver: Any) -> str:
    """Returns the driver's own reason why the CUDA runtime finds no GPU."""
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    if 0 < version.value < _CUDA_12:
        known = f"{version.value // 1000}.{version.value % 1000 // 10}"
        return f"the NVIDIA driver is too old: it supports CUDA {known}, 12.8 (R570) is needed"
    error = driver.cuInit(0)
    if error in (0, _NO_DEVICE):
        return (
            f"the NVIDIA driver shows no GPU to this process{_visible()}: there is none, or a "
            "sandbox hides /dev/nvidia*"
        )
    return (
        f"the NVIDIA driver can't be started (cuInit: error {error}): nvidia_uvm is not loaded, "
        "/dev/nvidia* is closed to this process, or the driver was changed since the last boot"
    )


def _visible() -> str:
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if chosen is None else f" (CUDA_VISIBLE_DEVICES={chosen!r})"


def _load_cublas() -> str | None:
    folders: list[Path] = []
    for entry in map(Path, sys.path):
        folders += [*sorted(entry.glob("nvidia/*/lib")), entry / "ctranslate2.libs"]
    for name in LIBRARIES:
        places = (folder / name for folder in folders)
        try:
            _load(str(next(filter(Path.exists, places), name)))
        except OSError as error:
            newer = any((folder / _OTHER_CUBLAS).exists() for folder in folders)
            return (
                f"{name} can't be loaded ({error}); `pip install 'asrd[cuda]'` or your "
                "distribution's CUDA 12 packages provide it"
                + (f" ({_OTHER_CUBLAS} does not work)" if newer else "")
            )
    return None


def _load(name: str) -> Any:
    return ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
