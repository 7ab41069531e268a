"""What CTranslate2 needs on a GPU, found before it needs it.

The ctranslate2 wheel links no CUDA library: it opens cuBLAS by name at its first multiplication
and fails there if the loader does not find it. A library that is already in the process is found in
any case, so it is loaded here: from pip's NVIDIA packages, from beside ctranslate2 (where
the Debian package puts it), or wherever the loader looks.
"""

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

DRIVER = "libcuda.so.1"
# cuBLAS needs the other; loaded first, it is found without a search path.
LIBRARIES = ("libcublasLt.so.12", "libcublas.so.12")

Loader = Callable[[str], object]


def why_not(index: int, count_devices: Callable[[], int], load: Loader | None = None) -> str | None:
    """Why GPU number `index` can't be used, in one sentence; None if it can.

    `count_devices` is ctranslate2's. On success cuBLAS stays loaded.
    """
    load = load or _load_for_all
    try:
        load(DRIVER)
    except OSError:
        return f"no NVIDIA driver is installed ({DRIVER} can't be loaded)"
    count = count_devices()
    if count == 0:
        return (
            "the NVIDIA driver shows no GPU to this process (too old a driver, "
            "CUDA_VISIBLE_DEVICES, or a service that may not open /dev/nvidia*)"
        )
    if index >= count:
        return f"there is no GPU number {index}, the driver shows {count}"
    return _load_libraries(load, sys.path)


def _load_libraries(load: Loader, path: Iterable[str]) -> str | None:
    directories = list(_directories(path))
    for name in LIBRARIES:
        try:
            load(_locate(name, directories))
        except OSError as error:
            return (
                f"{name} can't be loaded ({error}); `pip install 'asrd[cuda]'` or your "
                "distribution's CUDA 12 packages bring it"
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
