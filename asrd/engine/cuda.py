"""The check of CTranslate2's needs on a GPU, before CTranslate2 fails for lack of one.

The ctranslate2 wheel links no CUDA library: it opens cuBLAS by name at its first multiplication,
and fails there if the loader does not find it. A library that is already in the process is always
found. So cuBLAS is loaded here: from pip's NVIDIA packages, from the folder that the Debian package
puts next to ctranslate2, or from the loader's search path.
"""

import contextlib
import ctypes
import os
import re
import sys
from pathlib import Path
from typing import Any

DRIVER = "libcuda.so.1"
# cuBLAS needs cuBLASLt, and finds it without a search path once it is loaded.
LIBRARIES = ("libcublasLt.so.12", "libcublas.so.12")
_OTHER_CUBLAS = "libcublas.so.13"
# In the driver's numbering: 1000 times the major version and 10 times the minor one.
_CUDA_12 = 12_000
# R570's: CTranslate2 since 4.6.3 carries code for cards that it does not know in PTX 8.7.
_NEEDED = 12_080
VERSION_FILE = Path("/proc/driver/nvidia/version")
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


def why_old() -> str | None:
    """Returns a sentence if the driver is older than CTranslate2 needs; None if it is not, or if
    its age is unknown. Some cards work nevertheless."""
    version = _cuda_version(_load(DRIVER))
    if not 0 < version < _NEEDED:
        return None
    return (
        f"the NVIDIA driver {driver_version()} supports only CUDA {_named(version)}: with one that "
        "is older than R570 (CUDA 12.8), CTranslate2 fails or gives wrong text on some cards; "
        "install a newer driver"
    )


def driver_version() -> str:
    """Returns the version of the kernel's driver, such as 570.86.10; "unknown" if it is hidden."""
    with contextlib.suppress(OSError):
        found = re.search(r"Kernel Module .*?(\d+\.[\d.]+)", VERSION_FILE.read_text("utf-8"))
        if found:
            return found[1]
    return "unknown"


def _cuda_version(driver: Any) -> int:
    """Returns the newest CUDA that the driver supports, in its numbering; 0 if that is unknown."""
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    return version.value


def _named(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _why_none(driver: Any) -> str:
    """Returns the driver's own reason why the CUDA runtime finds no GPU."""
    version = _cuda_version(driver)
    if 0 < version < _CUDA_12:
        known = _named(version)
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
